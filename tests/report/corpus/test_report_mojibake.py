# ruff: noqa: RUF001  the texts are in many languages

import pytest

from sottovoce.report.corpus.characters import find_mojibake, repair

TEXTS = ["Café", "déjà vu", "Grüße", "łódź", "naïve", "привет", "日本語", "it’s — “x”", "100 €", "😀"]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("text", TEXTS)
def test_utf8_read_in_another_encoding_is_found(text, encoding):
    # Windows-1252 leaves five bytes without a character; programs pass them through.
    damaged = "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in text.encode())
    assert find_mojibake(damaged)


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "«\u00a0CAFÉ\u00a0»",
        "«CAFÉ»",
        "l'été\u00a0»",
        "„Ä“",
        "AMANHÃ”",
        "NÃO, SÃO!",
        "à\u00a0«\u00a0la",
        "GRÖß…",
        "Å…",
        "Île–de",
        "plain",
        "",
    ],
)
def test_correct_texts_have_no_mojibake(text):
    assert find_mojibake(text) == []


def test_each_sequence_stands_for_one_character():
    assert find_mojibake("Ã¼ÃŸ und â‚¬") == ["Ã¼", "ÃŸ", "â‚¬"]
    assert [repair(part) for part in ("Ã¼", "ÃŸ", "â‚¬")] == ["ü", "ß", "€"]


def test_a_sequence_that_is_no_utf8_cannot_be_repaired():
    with pytest.raises(UnicodeDecodeError):
        repair("à«a")
