"""Log-mel spectrograms of a batch: computed by threads on a CPU, or by the GPU.

Shapes: B batch, S samples, M mel bins, F frames.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sottovoce.audio.augmentation.spec_augment import Masks, mask_log_mel
from sottovoce.audio.features import Padding, log_mel
from sottovoce.model.log_mel import LogMel
from sottovoce.schema import Waveform


class Spectrograms(Protocol):
    """Computes log-mel spectrograms for training; both implementations agree within 1e-4."""

    @property
    def num_mel_bins(self) -> int:
        """M."""

    def compute(self, waveforms: Sequence[Waveform], *, num_frames: int, masks: Sequence[Masks] = ()) -> Tensor:
        """Compute the spectrograms of a batch.

        Args:
            waveforms: B of (S,), each at most ``num_frames`` * 160 samples.
            num_frames: F.
            masks: one per waveform, or none at all.

        Returns:
            (B, M, F) float32.
        """

    def close(self) -> None:
        """Release threads."""


def build_spectrograms(device: torch.device, *, num_mel_bins: int, num_threads: int, padding: Padding) -> Spectrograms:
    """Build what computes spectrograms for a worker on this device.

    Raises:
        UnsupportedMelBinsError: a bin count no Whisper uses.
    """
    if device.type == "cpu":
        return ThreadedSpectrograms(num_mel_bins, num_threads=num_threads, padding=padding)
    return DeviceSpectrograms(num_mel_bins, device, padding=padding)


class ThreadedSpectrograms:
    """Spectrograms computed one by one in threads."""

    def __init__(self, num_mel_bins: int, *, num_threads: int, padding: Padding) -> None:
        self._num_mel_bins = num_mel_bins
        self._padding = padding
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="spectrograms")

    @property
    def num_mel_bins(self) -> int:
        """M."""
        return self._num_mel_bins

    def compute(self, waveforms: Sequence[Waveform], *, num_frames: int, masks: Sequence[Masks] = ()) -> Tensor:
        """See ``Spectrograms``."""
        spectrograms = np.empty((len(waveforms), self._num_mel_bins, num_frames), np.float32)

        def compute_one(index: int) -> None:
            features = log_mel(
                waveforms[index], num_mel_bins=self._num_mel_bins, num_frames=num_frames, padding=self._padding
            )
            spectrograms[index] = mask_log_mel(features, masks[index]) if masks else features

        list(self._executor.map(compute_one, range(len(waveforms))))  # the list raises the errors of the threads
        return torch.from_numpy(spectrograms)

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown()


class DeviceSpectrograms:
    """Spectrograms computed at once on the GPU, which trains small models faster than CPUs could compute them."""

    def __init__(self, num_mel_bins: int, device: torch.device, *, padding: Padding) -> None:
        self._num_mel_bins = num_mel_bins
        self._padding = padding
        self._device = device
        self._log_mel = LogMel(num_mel_bins).to(device)

    @property
    def num_mel_bins(self) -> int:
        """M."""
        return self._num_mel_bins

    def compute(self, waveforms: Sequence[Waveform], *, num_frames: int, masks: Sequence[Masks] = ()) -> Tensor:
        """See ``Spectrograms``; the tensor is on the device."""
        lengths = [len(waveform) for waveform in waveforms]
        padded = torch.zeros(len(waveforms), max(lengths))
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        spectrograms: Tensor = self._log_mel(
            padded.to(self._device),
            torch.tensor(lengths, device=self._device),
            num_frames=num_frames,
            padding=self._padding,
        )
        for spectrogram, one in zip(spectrograms, masks, strict=False):  # no masks, or one per waveform
            _mask(spectrogram, one)
        return spectrograms

    def close(self) -> None:
        """Do nothing: there are no threads."""


def _mask(spectrogram: Tensor, masks: Masks) -> None:
    """Mask a spectrogram (M, F) in place, as ``mask_log_mel`` does."""
    if not (masks.frames or masks.bins):
        return
    speech = spectrogram[:, : masks.num_frames]
    mean = speech.mean()
    for start, stop in masks.frames:
        speech[:, start:stop] = mean
    for start, stop in masks.bins:
        speech[start:stop] = mean
