"""Error rates of ``real_whisper``: each system on the same utterances, and pairs of systems beside each other."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import Row
from benchmarks.whisper_systems import System
from sottovoce.schema import Utterance
from sottovoce.text.normalize import Normalizer, read_spelling
from sottovoce.text.paired import compare_wer
from sottovoce.text.score import score_texts

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def spell_digits(text: str) -> str:
    """Write each digit as its word: ``318-2819`` and ``Three, one, eight ...`` become comparable.

    Whisper writes spoken digits as numerals, one by one or joined, or as words, as it pleases. The references are
    words. Without this the base model would be charged with its spelling.
    """
    return re.sub("[0-9]", lambda found: f" {_WORDS[int(found.group())]} ", text)


def score_digits(utterances: Sequence[Utterance], texts: Mapping[System, Sequence[str]]) -> list[Row]:
    """Score connected digits: digits spelled out in all texts, then case and punctuation left out.

    Args:
        utterances: U, what was said.
        texts: (U,) of each system.
    """
    spelled = {system: [spell_digits(text) for text in written] for system, written in texts.items()}
    return _score("connected digits", utterances, spelled, normalizer="basic", spelling={})


def score_speech(utterances: Sequence[Utterance], texts: Mapping[System, Sequence[str]], *, base: Path) -> list[Row]:
    """Score ordinary English speech by Whisper's English normalizer.

    Args:
        utterances: U, what was said.
        texts: (U,) of each system.
        base: checkpoint whose spellings the normalizer uses.
    """
    return _score("ordinary speech", utterances, texts, normalizer="english", spelling=read_spelling(base))


def _score(
    speech: str,
    utterances: Sequence[Utterance],
    texts: Mapping[System, Sequence[str]],
    *,
    normalizer: Normalizer,
    spelling: Mapping[str, str],
) -> list[Row]:
    """Make a row of each system; the difference is to the first of them, on the same utterances."""
    references = [one.text for one in utterances]
    first = next(iter(texts))
    rows: list[Row] = []
    for system, written in texts.items():
        wer = score_texts(references, written, normalizer=normalizer, spelling=spelling).wer
        row: dict[str, object] = {
            "what": f"WER, {speech}",
            **system.describe(),
            "wer": wer.rate,
            "wer_low": wer.low,
            "wer_high": wer.high,
            "num_words": wer.num_reference,
            "num_utterances": len(references),
            "substitutions": wer.substitutions,
            "deletions": wer.deletions,
            "insertions": wer.insertions,
        }
        if system != first:
            change = compare_wer(utterances, [texts[first]], [written], normalizer=normalizer, spelling=spelling)
            row["minus_first"] = {"wer": change.difference, "low": change.low, "high": change.high}
        rows.append(row)
    return rows
