import random
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from sottovoce.demo.dictation import through_throat_microphone
from sottovoce.demo.distort import change_speed, distort, noise
from sottovoce.demo.grammar import load_grammar
from sottovoce.demo.pool import SpeechPool, speak_sentence, trim_silence, write_shard
from sottovoce.demo.speech import TRAINING_VOICES, UNSEEN_VOICES, Voice, speak, speak_words
from sottovoce.errors import ConfigError


def test_there_are_ten_training_voices_and_none_of_them_is_tested_as_unseen() -> None:
    assert len(set(TRAINING_VOICES)) >= 10
    assert not set(TRAINING_VOICES) & set(UNSEEN_VOICES)


@pytest.mark.parametrize("name", [*TRAINING_VOICES, *UNSEEN_VOICES])
def test_every_voice_speaks_at_16_khz(name: str) -> None:
    waveform = speak("One two three.", Voice(name=name))
    assert waveform.dtype == np.float32
    assert 0.7 < len(waveform) / 16_000 < 3.0
    assert 0.2 < np.abs(waveform).max() < 1.1


def test_processes_that_speak_the_same_texts_give_the_same_samples() -> None:
    program = """
import hashlib
from sottovoce.demo.speech import Voice, speak
spoken = [speak(text, Voice(name="en+f3")) for text in ("One two three.", "The quick brown fox.")]
print([hashlib.sha256(waveform.tobytes()).hexdigest() for waveform in spoken])
"""
    digests = []
    for _ in range(2):
        digests.append(subprocess.check_output([sys.executable, "-c", program], text=True))
        time.sleep(1.0)  # espeak-ng draws breath from the second it started in, unless it is told otherwise
    assert digests[0] == digests[1]


def test_more_words_per_minute_take_less_time() -> None:
    slow, fast = (speak("The quick brown fox.", Voice(name="en-us", words_per_minute=rate)) for rate in (120, 240))
    assert len(fast) < 0.7 * len(slow)


def test_an_unknown_voice_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="xx-nowhere"):
        speak("Hello.", Voice(name="xx-nowhere"))


def test_silence_is_removed_from_both_ends() -> None:
    waveform = np.zeros(1_000, dtype=np.float32)
    waveform[300:500] = 0.5
    assert len(trim_silence(waveform)) == 200
    assert len(trim_silence(np.zeros(10, dtype=np.float32))) == 10


def test_a_shard_is_reproducible_and_a_pool_sorts_by_duration(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sottovoce.demo.pool._SHARD_SIZE", 5)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_shard(folder, 0, 3)
    pool, again = SpeechPool(tmp_path / "a"), SpeechPool(tmp_path / "b")
    assert sorted(pool.texts) == sorted(again.texts)
    assert pool.durations_s.sum() == pytest.approx(again.durations_s.sum(), rel=0.01)
    assert len(pool) == 5
    assert list(pool.durations_s) == sorted(pool.durations_s)
    assert len(pool.waveform(4)) / 16_000 == pytest.approx(pool.durations_s[4])


def test_distortion_keeps_length_and_range_and_is_reproducible() -> None:
    _, _, speech = speak_sentence(load_grammar("sentences"), random.Random(0), symbol="sentence", voices=["en-us"])
    for seed in range(30):
        first = distort(speech, np.random.default_rng(seed))
        assert first.shape == speech.shape
        assert np.isfinite(first).all()
        assert np.abs(first).max() <= 0.951
        np.testing.assert_array_equal(first, distort(speech, np.random.default_rng(seed)))


def test_a_change_of_speed_changes_the_length_by_at_most_an_eighth() -> None:
    speech = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    lengths = {len(change_speed(speech, np.random.default_rng(seed))) for seed in range(20)}
    assert len(lengths) > 5
    assert all(14_000 < length < 18_400 for length in lengths)


def test_noise_has_unit_level() -> None:
    assert noise(160_000, np.random.default_rng(0)).std() == pytest.approx(1.0, abs=0.3)


def test_the_throat_microphone_attenuates_high_frequencies() -> None:
    speech = speak("She sells sea shells by the sea shore.", Voice(name="en-us"))
    recording = through_throat_microphone(speech, np.random.default_rng(0))

    def share_above(waveform: np.ndarray, hertz: float) -> float:
        power = np.abs(np.fft.rfft(waveform)) ** 2
        return float(power[np.fft.rfftfreq(len(waveform), 1 / 16_000) > hertz].sum() / power.sum())

    assert recording.shape == speech.shape
    assert np.abs(recording).max() <= 0.5
    assert share_above(recording, 4_000) < 0.1 * share_above(speech, 4_000)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("The small dog slept.", ["The", "small", "dog", "slept."]),
        ("Send it, please.", ["Send", "it,", "please."]),
        ("It is 25 degrees.", ["It", "is", "25", "degrees."]),
        ("two of the well-known facts", ["two", "of the", "well-known", "facts"]),
    ],
)
def test_words_follow_one_another_and_together_form_the_text(text: str, runs: list[str]) -> None:
    waveform, words = speak_words(text, Voice(name="en-us", word_gap=3))
    assert [word.text for word in words] == runs
    assert " ".join(word.text for word in words) == text
    times = [at_s for word in words for at_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0.0 <= times[0] < 0.1
    assert len(waveform) / 16_000 - 0.2 < times[-1] <= len(waveform) / 16_000 + 1e-3


def test_a_longer_gap_between_words_is_silence_between_their_times() -> None:
    _, words = speak_words("one two three", Voice(name="en-us", word_gap=20))
    gaps = [after.start_s - before.end_s for before, after in pairwise(words)]
    assert all(0.1 < gap < 0.4 for gap in gaps)


def test_nothing_said_has_no_words() -> None:
    assert speak_words("", Voice(name="en-us"))[1] == ()
