"""A decoded recording that is read window by window; only one window at a time is converted to float32.

Shapes: S samples.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np

from sottovoce.audio.silence import SILENCE_DBFS, find_pauses, peak_dbfs, quietest_sample
from sottovoce.audio.voice_activity import Span, as_waveform, find_speech, load_voice_activity, speech_gain
from sottovoce.audio.waveform import to_pcm
from sottovoce.schema import SAMPLING_RATE, Pcm, Waveform

_MARGIN_SAMPLES = SAMPLING_RATE // 8  # read on both sides of a possible cut: more than half the averaging window
_BLOCK_SAMPLES = 30 * SAMPLING_RATE  # converted at once


class Recording:
    """The samples of a recording, its pauses and its speech."""

    def __init__(self, samples: Pcm | Waveform) -> None:
        """Wrap (S,) int16, or float32 in [-1, 1]; mono, 16 000 Hz."""
        self.samples = samples

    @property
    def num_samples(self) -> int:
        """Number of samples, S."""
        return len(self.samples)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / SAMPLING_RATE

    def waveform(self, start: int, end: int) -> Waveform:
        """Return a span as float32 in [-1, 1]."""
        return as_waveform(self.samples[start:end])

    def pcm(self, start: int, end: int) -> Pcm:
        """Return a span as int16."""
        stretch = self.samples[start:end]
        return cast("Pcm", stretch) if stretch.dtype == np.int16 else to_pcm(cast("Waveform", stretch))

    def find_pause(self, start: int, end: int) -> int:
        """Return the middle of the longest pause in (start, end], or the quietest sample if there is no pause."""
        first = max(0, start - _MARGIN_SAMPLES)
        waveform = self.waveform(first, end + _MARGIN_SAMPLES)
        low, high = start - first, end - first
        spans = [(round(s * SAMPLING_RATE), round(e * SAMPLING_RATE)) for s, e in find_pauses(waveform)]
        inside = [(max(s, low), min(e, high)) for s, e in spans if s < high and e > low]
        if not inside:
            return first + quietest_sample(waveform, low, high)
        longest = max(inside, key=lambda span: span[1] - span[0])
        return first + max(low + 1, sum(longest) // 2)

    def find_speech(self, start: int, end: int, *, threshold: float, min_silence_s: float) -> Iterator[Span]:
        """Find the spans of speech in a span; see ``voice_activity.find_speech``."""
        stretch = _Stretch(self, start, end)
        spans = find_speech(
            load_voice_activity().probabilities(stretch, gain=speech_gain(stretch)),
            num_samples=end - start,
            threshold=threshold,
            min_silence_s=min_silence_s,
        )
        return ((start + first, start + last) for first, last in spans)

    def release(self) -> None:
        """Drop the samples now, even if something still refers to the recording; it is empty from then on."""
        self.samples = self.samples[:0].copy()

    def is_silent(self, start: int, end: int) -> bool:
        """Whether a span is too quiet to contain speech."""
        starts = range(start, end, _BLOCK_SAMPLES)
        return all(peak_dbfs(self.waveform(at, min(at + _BLOCK_SAMPLES, end))) < SILENCE_DBFS for at in starts)


class _Stretch:
    """A span of a recording. It holds no samples, so that a search for speech does not keep them in memory."""

    def __init__(self, recording: Recording, start: int, end: int) -> None:
        self._recording, self._start, self._end = recording, start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, span: slice, /) -> Pcm | Waveform:
        start, end, _ = span.indices(len(self))
        return self._recording.samples[self._start + start : self._start + end]
