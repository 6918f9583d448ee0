# ruff: noqa: RUF001  the texts are in many languages

import pytest
from report_corpus import make_clean_corpus, make_utterance

from sottovoce.report.corpus.characters import find_characters
from sottovoce.report.corpus.contents import MAX_EXAMPLES, MAX_LISTED

USUAL = {
    "en": "“It’s 5 % — or £3.50 & more,” he said… (21 °C)",
    "fr": "«\u00a0Où est l’œuvre n°\u202f5\u00a0?\u00a0» – Là-bas\u00a0!",
    "de": "Grüße an die Straße: „schön“!",
    "es": "¿Qué? ¡Mañana, 2ª!",
    "ru": "Дом № 5 — это он.",
    "ja": "今日は、コーヒーを飲みました。",
    "fa": "می\u200cخواهم",
    "hi": "क\u094d\u200dष और क्या?",
    "uk": "п'ять і пʼять",
}


def kinds(characters):
    return {finding.kind for finding in characters.findings}


def test_clean_texts_have_nothing_out_of_place():
    utterances = [make_utterance(language, language=language, text=text) for language, text in USUAL.items()]
    found = find_characters([*utterances, *make_clean_corpus()])
    assert found.findings == ()
    assert (found.num_utterances, found.num_damaged, found.num_foreign, found.total) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("caf\ufffd", "replacement", "\ufffd U+FFFD REPLACEMENT CHARACTER"),
        ("cafÃ©", "mojibake", "Ã© for é"),
        ("one\x07two", "control", "U+0007"),
        ("one\ttwo", "control", "U+0009"),
        ("one\ue000two", "private_use", "U+E000"),
        ("one\u200btwo", "invisible", "U+200B ZERO WIDTH SPACE"),
        ("one twо", "rare_script", "Cyrillic: о"),  # a Cyrillic o
        ("one 😀", "unusual_symbol", "😀 U+1F600 GRINNING FACE"),
        ("<unk", "unusual_symbol", "< U+003C LESS-THAN SIGN"),
    ],
)
def test_each_kind_is_found_with_its_place(text, kind, what):
    found = find_characters([*make_clean_corpus(), make_utterance("bad", text=text)])
    (finding,) = found.findings
    assert (finding.kind, finding.what, finding.language) == (kind, what, "en")
    assert (finding.examples, finding.occurrences, finding.utterances) == (("bad",), 1, 1)
    assert found.num_damaged == (kind in ("replacement", "mojibake", "control", "private_use", "invisible"))
    assert found.num_foreign == (kind == "rare_script")


def test_what_is_usual_in_one_language_is_out_of_place_in_another():
    russian = [make_utterance(f"ru {i}", language="ru", text="это обычный текст") for i in range(20)]
    english = make_utterance("en", language="en", text="ж")
    assert find_characters([*russian, *make_clean_corpus()]).findings == ()
    assert kinds(find_characters([*russian, *make_clean_corpus(), english])) == {"rare_script"}


def test_a_translation_is_written_in_english():
    russian = [make_utterance(f"ru {i}", language="ru", text="это обычный текст") for i in range(20)]
    translated = make_utterance("t", language="ru", task="translate", text="this is it")
    assert find_characters([*russian, *make_clean_corpus(), translated]).findings == ()


def test_occurrences_and_utterances_are_counted_and_examples_capped():
    utterances = [make_utterance(f"{i}", text="a [b] [c]") for i in range(MAX_EXAMPLES + 4)]
    opening, closing = find_characters(utterances).findings
    assert (opening.what[0], closing.what[0]) == ("[", "]")
    assert (opening.occurrences, opening.utterances) == (2 * len(utterances), len(utterances))
    assert len(opening.examples) == MAX_EXAMPLES


def test_many_findings_are_capped_and_damage_comes_first():
    symbols = "".join(chr(code) for code in range(0x2500, 0x2500 + MAX_LISTED + 30))
    found = find_characters([make_utterance("a", text=symbols), make_utterance("b", text="x\ufffd")])
    assert (found.total, len(found.findings)) == (MAX_LISTED + 31, MAX_LISTED)
    assert found.findings[0].kind == "replacement"
