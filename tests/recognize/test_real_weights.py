"""Whisper's published base model on real speech: what is said, in which language, and when."""

import json
from pathlib import Path

import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import DecodeOptions, WindowResult
from sottovoce.text.score import score_texts

pytestmark = [pytest.mark.weights, pytest.mark.slow]

JFK = "And so my fellow Americans ask not what your country can do for you, ask what you can do for your country."
OTHERS = {"es": "audio/leopard__test_es.wav", "de": "audio/leopard__test_de.wav"}
STARTS_S = {"fellow": 1.4, "americans": 1.6, "not": 4.0, "country": 5.65}
"""Of words said once before the second "ask", as heard and seen in the waveform."""
PAUSES_S = ((2.3, 3.2), (4.45, 5.3), (7.6, 8.1))
"""In which Kennedy says nothing."""
TOLERANCE_S = 0.25
MAX_CER = 0.2  # measured 0.10 in German and as much in Spanish: some words are heard together or apart
DURATION_S = 11.0


@pytest.fixture(scope="module")
def recognizer(real_weights: Path) -> Recognizer:
    return load_recognizer(real_weights)


@pytest.fixture(scope="module")
def results(recognizer: Recognizer, shared_data: Path) -> dict[str, WindowResult]:
    """Of one batch in three languages, none of them named; by language."""
    paths = {"en": shared_data / "jfk.flac"} | {code: shared_data / "real" / name for code, name in OTHERS.items()}
    options = [DecodeOptions(language=None, word_timestamps=True)] * len(paths)
    found = recognizer.recognize([read_audio(str(path)) for path in paths.values()], options)
    return dict(zip(paths, found, strict=True))


def words_of(text: str) -> list[str]:
    return text.lower().replace(",", "").replace(".", "").split()


def test_kennedys_sentence_is_transcribed_word_for_word(results: dict[str, WindowResult]) -> None:
    assert words_of(results["en"].text) == words_of(JFK)


def test_a_whole_recording_is_transcribed_from_its_file(recognizer: Recognizer, shared_data: Path) -> None:
    transcript = recognizer.transcribe(shared_data / "jfk.flac", language=None)
    assert words_of(transcript.text) == words_of(JFK)
    assert transcript.language == "en"


@pytest.mark.parametrize("language", ["en", *OTHERS])
def test_the_language_is_detected(results: dict[str, WindowResult], language: str) -> None:
    assert results[language].language == language
    assert results[language].language_probability is not None
    assert results[language].language_probability > 0.9


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_are_transcribed(results: dict[str, WindowResult], shared_data: Path, language: str) -> None:
    lines = (shared_data / "real" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {row["audio"]: row["text"] for row in map(json.loads, lines)}
    score = score_texts([texts[OTHERS[language]]], [results[language].text], normalizer="basic")
    assert score.cer.rate <= MAX_CER


def test_words_come_when_they_are_said(results: dict[str, WindowResult]) -> None:
    words = results["en"].words
    assert words_of(" ".join(word.text for word in words)) == words_of(JFK)
    times_s = [time_s for word in words for time_s in (word.start_s, word.end_s)]
    assert times_s == sorted(times_s)
    assert times_s[0] >= 0.0
    assert times_s[-1] <= DURATION_S
    starts_s = {text: word.start_s for word in reversed(words) for text in words_of(word.text)}  # the first of its kind
    assert {text: starts_s[text] for text in STARTS_S} == pytest.approx(STARTS_S, abs=TOLERANCE_S)


def test_no_word_lies_in_a_pause(results: dict[str, WindowResult]) -> None:
    for start_s, end_s in PAUSES_S:
        middle_s = (start_s + end_s) / 2
        assert not [word.text for word in results["en"].words if word.start_s < middle_s < word.end_s]
