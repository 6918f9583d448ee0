import numpy as np
import pytest
from pydantic import ValidationError

from sottovoce.demo.speech import Voice, speak
from sottovoce.recognize.longform.algorithms import build_reader
from sottovoce.recognize.longform.options import LongFormOptions
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.sequential import SequentialReader
from sottovoce.schema import SAMPLING_RATE, DecodeOptions

TRIMMED = {"min_window_s": 2.0, "max_window_s": 5.0}
STOCK = {"min_window_s": 30.0, "max_window_s": 30.0}


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """A sentence of some two seconds."""
    return speak("There is a long car across the beach.", Voice(name="en-us"))


def windows(samples: np.ndarray, **settings) -> list[tuple[float, float]]:
    """The windows of the chunked algorithm, in seconds."""
    reader = build_reader(Recording(samples), DecodeOptions(), LongFormOptions(**settings), **TRIMMED)
    found = []
    while (request := reader.next_window()) is not None:
        found.append((request.start / SAMPLING_RATE, request.end / SAMPLING_RATE))
    return found


def silence(duration_s: float) -> np.ndarray:
    return np.zeros(int(duration_s * SAMPLING_RATE), np.float32)


def test_a_recording_that_fits_is_one_window_unless_speech_is_searched(voice):
    recording = np.concatenate([silence(1.0), voice, silence(1.0)])
    duration_s = len(recording) / SAMPLING_RATE
    assert windows(recording) == [(0.0, duration_s)]
    ((start_s, end_s),) = windows(recording, always_find_speech=True)
    assert 0.5 < start_s < 1.0
    assert duration_s - 1.0 < end_s < duration_s - 0.5


def test_pure_silence_has_no_window():
    assert windows(silence(3.0)) == windows(silence(60.0)) == []


def test_a_long_recording_is_cut_in_pauses(voice):
    pause = silence(0.6)
    recording = np.concatenate([part for _ in range(12) for part in (pause, voice)])
    starts = [index * len(np.concatenate([pause, voice])) / SAMPLING_RATE + 0.6 for index in range(12)]
    found = windows(recording)
    assert len(found) >= 5
    for start_s in starts:
        end_s = start_s + len(voice) / SAMPLING_RATE
        assert sum(first < start_s + 0.05 and end_s - 0.2 < last for first, last in found) == 1


def test_noise_is_no_speech():
    noise = np.random.default_rng(0).normal(scale=0.1, size=20 * SAMPLING_RATE).astype(np.float32)
    assert windows(noise) == []


def test_settings_of_voice_activity_count(voice):
    recording = np.concatenate([silence(2.0), voice, silence(3.0)])
    ((narrow, _),) = windows(recording, prefix_padding_s=0.0)
    ((wide, _),) = windows(recording, prefix_padding_s=0.7)
    assert wide == pytest.approx(narrow - 0.7, abs=0.01)
    ((_, early),) = windows(recording, min_silence_s=0.1)
    ((_, late),) = windows(recording, min_silence_s=0.6)
    assert late == pytest.approx(early + 0.5, abs=0.01)
    assert windows(recording, threshold=1.0) == []


def test_a_stock_whisper_moves_by_times_whatever_is_asked_and_a_trimmed_one_need_not():
    sequential = LongFormOptions(algorithm="sequential", skip_without_voice=False)
    recording = Recording(np.ones(40 * SAMPLING_RATE, np.float32))
    stock = build_reader(recording, DecodeOptions(timestamps=False), sequential, **STOCK)
    assert isinstance(stock, SequentialReader)
    request = stock.next_window()
    assert request.options.timestamps
    assert request.end == 30 * SAMPLING_RATE
    trimmed = build_reader(recording, DecodeOptions(timestamps=False), sequential, **TRIMMED)
    request = trimmed.next_window()
    assert not request.options.timestamps
    assert request.end <= 5 * SAMPLING_RATE


@pytest.mark.parametrize("algorithm", ["sequential", "chunked"])
@pytest.mark.parametrize("duration_s", [3.0, 12.0])
def test_noise_is_not_decoded_unless_it_is_asked_for(algorithm, duration_s):
    noise = np.random.default_rng(0).normal(scale=0.1, size=int(duration_s * SAMPLING_RATE)).astype(np.float32)
    assert windows(noise, algorithm=algorithm) == []
    if algorithm == "sequential" or duration_s < 5.0:
        assert windows(noise, algorithm=algorithm, skip_without_voice=False)


@pytest.mark.parametrize("level", [1.0, 0.01])
def test_speech_is_found_at_any_level(voice, level):
    spoken = (level * voice).astype(np.float32)
    assert windows(spoken) == windows(spoken, algorithm="sequential") == [(0.0, len(voice) / SAMPLING_RATE)]


def test_a_word_after_a_window_of_noise_is_decoded_from_its_beginning(voice):
    random = np.random.default_rng(0)
    noise = random.normal(scale=0.003, size=11 * SAMPLING_RATE).astype(np.float32)
    found = windows(np.concatenate([noise, voice]), algorithm="sequential")
    assert found[0][0] <= 11.0
    assert found[-1][1] == pytest.approx(11.0 + len(voice) / SAMPLING_RATE)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.1}, {"prefix_padding_s": -1.0}, {"algorithm": "other"}, {"window_s": 0.9}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        LongFormOptions(**wrong)
