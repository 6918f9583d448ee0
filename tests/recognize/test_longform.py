import numpy as np
import pytest

from sottovoce.model.context import AudioContext
from sottovoce.recognize.longform import Segment, join_text, transcribe_waveform
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, WindowResult


class CountingRecognizer:
    """Writes how many seconds it heard, and remembers the sizes of its batches."""

    name = "counting"
    context = AudioContext(min_s=2.0, max_s=5.0)
    languages = ("en",)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def recognize(self, windows, options):
        self.batches.append(len(windows))
        assert all(window.shape[0] <= self.context.max_s * SAMPLING_RATE for window in windows)
        return [
            WindowResult(text=f"{w.shape[0] / SAMPLING_RATE:.0f}", token_ids=(), language="en", **NO_PROBABILITIES)
            for w in windows
        ]


NO_PROBABILITIES = {"avg_logprob": 0.0, "no_speech_prob": 0.0}


def words(count: int) -> np.ndarray:
    """Bursts of noise of 0.8 s with 0.2 s of silence after each."""
    random = np.random.default_rng(0)
    burst = np.concatenate([0.3 * random.standard_normal(12_800), np.zeros(3_200)]).astype(np.float32)
    return np.tile(burst, count)


def test_speech_that_fits_the_context_is_one_segment():
    segments = transcribe_waveform(CountingRecognizer(), words(5), DecodeOptions())
    assert [(segment.start_s, segment.end_s) for segment in segments] == [(0.0, 5.0)]


def test_long_speech_is_cut_at_silences_and_every_burst_is_in_some_segment():
    recognizer = CountingRecognizer()
    segments = transcribe_waveform(recognizer, words(23), DecodeOptions(), batch_size=2)
    assert len(segments) >= 5
    assert max(recognizer.batches) == 2
    assert [segment.start_s for segment in segments] == sorted(segment.start_s for segment in segments)
    centres = [second + 0.4 for second in range(23)]
    assert all(any(s.start_s <= centre <= s.end_s for s in segments) for centre in centres)


def test_long_silence_gives_no_segments():
    assert transcribe_waveform(CountingRecognizer(), np.zeros(20 * SAMPLING_RATE, np.float32), DecodeOptions()) == []


@pytest.mark.parametrize(("texts", "joined"), [([], ""), (["a", "", " b "], "a b"), (["", ""], "")])
def test_texts_are_joined_with_single_spaces(texts, joined):
    result = [WindowResult(text=text, token_ids=(), language="en", **NO_PROBABILITIES) for text in texts]
    assert join_text([Segment(start_s=0.0, end_s=1.0, result=r) for r in result]) == joined
