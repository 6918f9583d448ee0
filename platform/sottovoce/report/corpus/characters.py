"""Find characters that are out of place in transcripts: mojibake, damage, rare scripts, unusual symbols."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, get_args

from sottovoce.report.corpus.contents import MAX_EXAMPLES, MAX_LISTED, CharacterFinding, CharacterKind, Characters
from sottovoce.schema import Utterance

_FOLLOWING = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0)) + "\u0080-\u009f"
"""How the continuation bytes of UTF-8 look in Windows-1252."""

_CHARACTER = f"[\u00c2-\u00df][{_FOLLOWING}]|[\u00e0-\u00ef][{_FOLLOWING}]{{2}}|[\u00f0-\u00f4][{_FOLLOWING}]{{3}}"
_ONE, _SEVERAL = re.compile(_CHARACTER), re.compile(f"(?:{_CHARACTER})+")
_CLOSING = frozenset("\u00bb\u2013\u2014\u2019\u201c\u201d\u2026\u203a")  # » – — ’ “ ” … › may follow a capital

RARE_SCRIPT_SHARE = 0.01  # guess: of a language's letters; names and brands in another script stay below it

_KINDS: tuple[CharacterKind, ...] = get_args(CharacterKind)
_DAMAGED: frozenset[CharacterKind] = frozenset({"replacement", "mojibake", "control", "private_use", "invisible"})
_KIND_OF_CATEGORY: Final[Mapping[str, CharacterKind]] = {
    "Cc": "control",
    "Cn": "control",  # not assigned
    "Cs": "control",
    "Co": "private_use",
    "Cf": "invisible",
    "Zl": "invisible",
    "Zp": "invisible",
    "So": "unusual_symbol",
    "Sk": "unusual_symbol",
    "Sm": "unusual_symbol",
}
_JOINERS = frozenset("\u200c\u200d")  # Persian and Indian scripts need them
_USUAL = _JOINERS | frozenset("°№+=±÷\u00d7\u2212")
_MARK_UP = frozenset("<>{}[]|\\^~_*#@`")
_WRITING_SYSTEMS = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}  # both kana are one system


def find_mojibake(text: str) -> list[str]:
    """Return the sequences that each stand for one wrongly decoded character and repair to a likely one."""
    if text.isascii():
        return []
    return [part for sequence in _SEVERAL.findall(text) if _is_mojibake(sequence) for part in _ONE.findall(sequence)]


def repair(sequence: str) -> str:
    """Reverse the wrong decoding.

    Raises:
        UnicodeDecodeError: the sequence is no UTF-8, so it was not decoded wrongly.
    """
    return bytes(ord(c) if ord(c) < 0x100 else c.encode("cp1252")[0] for c in sequence).decode("utf-8")


@cache
def _is_mojibake(sequence: str) -> bool:
    """Whether the repaired sequence is likely.

    Correct texts contain such sequences, too: a capital before a quotation mark, French letters before a no-break space
    and a guillemet. They repair to one character of a distant script, or end in closing punctuation.
    """
    try:
        repaired = repair(sequence)
    except UnicodeDecodeError:
        return False
    if len(repaired) > 1:
        return True
    if len(sequence) == 2 and sequence[1] in _CLOSING:
        return False
    is_european = repaired <= "\u017f"
    is_punctuation = "\u2000" <= repaired <= "\u214f"  # with currency and letter-like signs
    is_emoji = repaired >= "\U0001f000"
    return is_european or is_punctuation or is_emoji


@dataclass
class _Tally:
    """The occurrences of one character or sequence in one language."""

    occurrences: int = 0
    utterances: int = 0
    examples: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Letters of a rare script."""


def find_characters(utterances: Sequence[Utterance]) -> Characters:
    """List the findings in the texts of each language: damage, letters of rare scripts, unusual symbols."""
    texts: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        texts["en" if utterance.task == "translate" else utterance.language].append(utterance)
    findings: list[CharacterFinding] = []
    num_utterances = num_damaged = num_foreign = 0
    for language, spoken in sorted(texts.items()):
        tallies: defaultdict[tuple[CharacterKind, str], _Tally] = defaultdict(_Tally)
        for kinds in _search(spoken, tallies):
            num_utterances += 1
            num_damaged += not kinds.isdisjoint(_DAMAGED)
            num_foreign += "rare_script" in kinds
        findings += [_describe(kind, what, tally, language) for (kind, what), tally in tallies.items()]
    findings.sort(key=lambda finding: (_KINDS.index(finding.kind), -finding.utterances, finding.language, finding.what))
    return Characters(
        num_utterances=num_utterances,
        num_damaged=num_damaged,
        num_foreign=num_foreign,
        total=len(findings),
        findings=tuple(findings[:MAX_LISTED]),
    )


def _search(
    utterances: Sequence[Utterance], tallies: defaultdict[tuple[CharacterKind, str], _Tally]
) -> Iterable[set[CharacterKind]]:
    """Count the findings in texts of one language; yield the kinds found in each utterance with findings."""
    suspects = _suspect(utterances)
    pattern = re.compile("[" + "".join(map(re.escape, suspects)) + "]" if suspects else r"(?!)")
    for utterance in utterances:
        found: Counter[tuple[CharacterKind, str]] = Counter()
        text = utterance.text
        for sequence in find_mojibake(text):
            found["mojibake", sequence] += 1
            text = text.replace(sequence, "", 1)  # its characters are not separate findings
        for character, count in Counter(pattern.findall(text)).items():
            found[suspects[character]] += count
            if suspects[character][0] == "rare_script":
                tallies[suspects[character]].seen.add(character)
        for key, count in found.items():
            tally = tallies[key]
            tally.occurrences += count
            tally.utterances += 1
            if len(tally.examples) < MAX_EXAMPLES:
                tally.examples.append(utterance.id)
        if found:
            yield {kind for kind, _ in found}


def _suspect(utterances: Iterable[Utterance]) -> dict[str, tuple[CharacterKind, str]]:
    """Return the characters of these texts that are out of place, with kind and name.

    Characters are counted first and classified once each: a million texts have a few thousand different characters.
    """
    counts: Counter[str] = Counter()
    for utterance in utterances:
        counts.update(utterance.text)
    letters: Counter[str] = Counter()
    for character, count in counts.items():
        script = _script(character)
        if script is not None:
            letters[script] += count
    rare = {script for script, count in letters.items() if count < RARE_SCRIPT_SHARE * letters.total()}
    suspects: dict[str, tuple[CharacterKind, str]] = {}
    for character in counts:
        kind, script = _kind(character), _script(character)
        if kind is not None:
            suspects[character] = (kind, character)
        elif script in rare:
            suspects[character] = ("rare_script", str(script))
    return suspects


def _kind(character: str) -> CharacterKind | None:
    if character == "\ufffd":
        return "replacement"
    if character in _MARK_UP:
        return "unusual_symbol"
    return None if character in _USUAL else _KIND_OF_CATEGORY.get(unicodedata.category(character))


@cache
def _script(character: str) -> str | None:
    """Return a letter's script, the first word of its Unicode name; None for characters shared by all scripts."""
    if unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo") or character in "ªºµ":
        return None
    word = unicodedata.name(character, "UNKNOWN").split()[0]
    return _WRITING_SYSTEMS.get(word, word.capitalize())


def _describe(kind: CharacterKind, what: str, tally: _Tally, language: str) -> CharacterFinding:
    return CharacterFinding(
        kind=kind,
        language=language,
        what=_name(kind, what, tally),
        occurrences=tally.occurrences,
        utterances=tally.utterances,
        examples=tuple(tally.examples),
    )


def _name(kind: CharacterKind, what: str, tally: _Tally) -> str:
    if kind == "mojibake":
        return f"{what} for {repair(what)}"
    if kind == "rare_script":
        return f"{what}: {' '.join(sorted(tally.seen)[:20])}"
    code = f"U+{ord(what):04X} {unicodedata.name(what, '')}".rstrip()
    return f"{what} {code}" if what.isprintable() and not unicodedata.combining(what) else code
