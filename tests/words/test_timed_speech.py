import numpy as np
import pytest
import soundfile

from sottovoce.audio.decode import read_audio
from sottovoce.schema import Utterance, WordTime
from sottovoce.words import timed_speech
from sottovoce.words.timed_speech import TimedPiece, TimedSpeech, join_utterances, word_errors

RATE = 16_000


@pytest.fixture
def utterances(tmp_path) -> list[Utterance]:
    """Twelve tones of 1 s with 0.2 s of quiet before and 0.1 s after."""
    made = []
    for index in range(12):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * index) * np.arange(RATE) / RATE)
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, np.pad(tone, (3_200, 1_600)), RATE, subtype="PCM_16")
        made.append(Utterance(id=f"u{index}", audio=str(path), duration_s=1.3, text=f"tone {index}"))
    return made


def test_pieces_are_where_the_sound_is(utterances):
    windows = join_utterances(utterances, max_s=10.0, max_examples=10)
    assert [len(window.pieces) for window in windows] == [4, 4, 4]
    assert [piece.text for piece in windows[1].pieces] == ["tone 4", "tone 5", "tone 6", "tone 7"]
    for window in windows:
        assert len(window.waveform) <= 10 * RATE
        for piece in window.pieces:
            start, end = round(piece.start_s * RATE), round(piece.end_s * RATE)
            assert piece.end_s - piece.start_s == pytest.approx(1.0, abs=0.02)
            assert np.abs(window.waveform[start : start + 400]).max() > 0.1
            assert np.abs(window.waveform[end + 160 : end + 800]).max() < 0.01


def test_the_same_utterances_give_the_same_windows_up_to_the_number_wanted(utterances):
    first, again = (join_utterances(utterances, max_s=6.0, max_examples=2) for _ in range(2))
    assert len(first) == 2
    for one, other in zip(first, again, strict=True):
        assert one.pieces == other.pieces
        np.testing.assert_array_equal(one.waveform, other.waveform)


def test_what_cannot_be_timed_is_left_out(utterances, tmp_path):
    broken = utterances[0].model_copy(update={"audio": str(tmp_path / "none.wav")})
    silent = utterances[1].model_copy(update={"text": " "})
    translated = utterances[2].model_copy(update={"task": "translate"})
    windows = join_utterances([broken, silent, translated, *utterances[3:6]], max_s=10.0, max_examples=9)
    assert [[piece.text for piece in window.pieces] for window in windows] == [["tone 3", "tone 4", "tone 5"]]


def test_languages_are_not_mixed_in_a_window(utterances):
    mixed = [one.model_copy(update={"language": "de" if index < 3 else "en"}) for index, one in enumerate(utterances)]
    windows = join_utterances(mixed[:5], max_s=10.0, max_examples=9)
    assert [(window.language, len(window.pieces)) for window in windows] == [("de", 3), ("en", 2)]


@pytest.mark.parametrize("max_s", [1.0, 2.0])
def test_utterances_too_long_to_be_joined_give_nothing(utterances, max_s):
    assert join_utterances(utterances, max_s=max_s, max_examples=9) == []


@pytest.fixture
def readings(monkeypatch) -> list[str]:
    """What is decoded, as it is asked for."""
    asked = []

    def read(reference, **part):
        asked.append(reference)
        return read_audio(reference, **part)

    monkeypatch.setattr(timed_speech, "read_audio", read)
    return asked


def with_durations(utterances, *durations_s) -> list[Utterance]:
    pairs = zip(utterances, durations_s, strict=False)
    return [one.model_copy(update={"duration_s": duration_s}) for one, duration_s in pairs]


def test_nothing_is_decoded_that_cannot_be_joined(utterances, readings):
    assert join_utterances(utterances, max_s=2.0, max_examples=9) == []
    assert readings == []
    alone = with_durations(utterances, 1.3, 8.0, 6.0, 1.3)  # 8 s would fit with 1.3 s, but not with the next
    join_utterances(alone[1:], max_s=10.0, max_examples=9)
    assert readings == [one.audio for one in alone[2:]]


def test_an_utterance_too_long_for_any_other_does_not_part_its_neighbours(utterances, readings):
    join_utterances(with_durations(utterances, 1.3, 9.5, 1.3), max_s=10.0, max_examples=9)
    assert readings == [utterances[0].audio, utterances[2].audio]


def test_a_corpus_that_cannot_be_read_is_given_up(tmp_path, utterances, readings):
    gone = [utterances[0].model_copy(update={"audio": str(tmp_path / f"gone-{index}.wav")}) for index in range(100)]
    assert join_utterances(gone, max_s=10.0, max_examples=2) == []
    assert len(readings) == 16


SPEECH = TimedSpeech(np.zeros(RATE, np.float32), (TimedPiece("one two", 0.1, 0.5), TimedPiece("three.", 0.6, 0.9)))


def test_errors_are_those_of_each_pieces_start_and_end():
    words = [WordTime("one", 0.2, 0.3, 1.0), WordTime("two", 0.3, 0.4, 1.0), WordTime("three.", 0.6, 1.0, 1.0)]
    assert word_errors(words, SPEECH) == pytest.approx([0.1, -0.1, 0.0, 0.1])


@pytest.mark.parametrize("texts", [["one", "two"], ["one", "two", "four."], ["one", "two", "three.", "four"], []])
def test_other_words_than_were_said_have_no_errors(texts):
    assert word_errors([WordTime(text, 0.0, 0.1, 1.0) for text in texts], SPEECH) is None
