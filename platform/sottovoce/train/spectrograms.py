"""Log-mel spectrograms of a batch: on a CPU in threads of their own, on a GPU by the GPU.

Shapes: B batch, S samples, M mel bins, F frames.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sottovoce.audio.augmentation.spec_augment import Masks, mask_log_mel
from sottovoce.audio.features import log_mel
from sottovoce.model.log_mel import LogMel
from sottovoce.schema import Waveform


class Spectrograms(Protocol):
    """What draws log-mel for training; both ways give the same within 1e-4."""

    @property
    def num_mel_bins(self) -> int:
        """M."""

    def draw(self, waveforms: Sequence[Waveform], *, num_frames: int, masks: Sequence[Masks] = ()) -> Tensor:
        """Draw a batch.

        Args:
            waveforms: B of (S,), each at most ``num_frames`` * 160 samples.
            num_frames: F.
            masks: one for each waveform, or none at all.

        Returns:
            (B, M, F) float32.
        """

    def close(self) -> None:
        """Let go of threads."""


def build_spectrograms(device: torch.device, *, num_mel_bins: int, num_threads: int) -> Spectrograms:
    """Give what draws for a worker on this device.

    Raises:
        UnsupportedMelBinsError: a bin count no Whisper uses.
    """
    if device.type == "cpu":
        return ThreadedSpectrograms(num_mel_bins, num_threads=num_threads)
    return DeviceSpectrograms(num_mel_bins, device)


class ThreadedSpectrograms:
    """Spectrograms drawn one by one in threads."""

    def __init__(self, num_mel_bins: int, *, num_threads: int) -> None:
        self._num_mel_bins = num_mel_bins
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="spectrograms")

    @property
    def num_mel_bins(self) -> int:
        """M."""
        return self._num_mel_bins

    def draw(self, waveforms: Sequence[Waveform], *, num_frames: int, masks: Sequence[Masks] = ()) -> Tensor:
        """See ``Spectrograms``."""
        spectrograms = np.empty((len(waveforms), self._num_mel_bins, num_frames), np.float32)

        def draw_one(place: int) -> None:
            features = log_mel(waveforms[place], num_mel_bins=self._num_mel_bins, num_frames=num_frames)
            spectrograms[place] = mask_log_mel(features, masks[place]) if masks else features

        list(self._executor.map(draw_one, range(len(waveforms))))  # a list, so that an error comes out
        return torch.from_numpy(spectrograms)

    def close(self) -> None:
        """Let go of the threads."""
        self._executor.shutdown()


class DeviceSpectrograms:
    """Spectrograms drawn all at once where the model is: a GPU trains small models faster than cores could draw."""

    def __init__(self, num_mel_bins: int, device: torch.device) -> None:
        self._num_mel_bins = num_mel_bins
        self._device = device
        self._log_mel = LogMel(num_mel_bins).to(device)

    @property
    def num_mel_bins(self) -> int:
        """M."""
        return self._num_mel_bins

    def draw(self, waveforms: Sequence[Waveform], *, num_frames: int, masks: Sequence[Masks] = ()) -> Tensor:
        """See ``Spectrograms``; the tensor is on the device."""
        lengths = [len(waveform) for waveform in waveforms]
        padded = torch.zeros(len(waveforms), max(lengths))
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        spectrograms: Tensor = self._log_mel(
            padded.to(self._device), torch.tensor(lengths, device=self._device), num_frames=num_frames
        )
        for spectrogram, one in zip(spectrograms, masks, strict=False):  # no masks, or one for each
            _mask(spectrogram, one)
        return spectrograms

    def close(self) -> None:
        """Nothing to let go of."""


def _mask(spectrogram: Tensor, masks: Masks) -> None:
    """Lay masks over (M, F) in place, as ``mask_log_mel`` does."""
    if not (masks.frames or masks.bins):
        return
    speech = spectrogram[:, : masks.num_frames]
    mean = speech.mean()
    for start, stop in masks.frames:
        speech[:, start:stop] = mean
    for start, stop in masks.bins:
        speech[start:stop] = mean
