"""The log-mel spectrogram Whisper reads, computed by torch on the device of training.

Shapes: B batch, S samples, M mel bins, F frames (one per 10 ms).
"""

import torch
from torch import Tensor, nn

from sottovoce.audio.features import DYNAMIC_RANGE, SILENCE, WINDOW_LENGTH, Padding, hann_window, mel_filters
from sottovoce.audio.waveform import FULL_SCALE
from sottovoce.errors import ContextError
from sottovoce.schema import HOP_LENGTH, SAMPLING_RATE


class LogMel(nn.Module):
    """The result of ``audio.features.log_mel_batch``, for a padded batch on any device.

    It is meant for a GPU: a CPU core computes 30 s in 2 to 3 ms, and one GPU trains the smallest models faster than
    that. On a CPU use ``log_mel_batch``, which skips the padding. Both agree within 1e-4; within 2e-4 by calculation
    (untested) if a GPU may use TF32 for matrix products, which PyTorch does not by default.

    Args:
        num_mel_bins: 80, or 128 for large-v3.

    Raises:
        UnsupportedMelBinsError: any other bin count.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, num_mel_bins: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.from_numpy(hann_window().copy()), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(num_mel_bins).copy()), persistent=False)

    @torch.no_grad()
    def forward(self, waveforms: Tensor, lengths: Tensor, *, num_frames: int, padding: Padding = "sound") -> Tensor:
        """Compute the spectrograms of a batch.

        Args:
            waveforms: (B, S) float in [-1, 1] or int16 PCM, mono, 16 000 Hz, on the module's device; samples
                beyond a waveform's length count as silence, whatever their values.
            lengths: (B,) samples of each waveform, at most S, on the same device.
            num_frames: frames to return, at least 2.
            padding: what follows a waveform.

        Returns:
            (B, M, F) float32, log10-scaled; max - min <= 2 within the frames of a waveform. Also float32 under
            autocast: half precision represents neither the powers nor the floor.

        Raises:
            ContextError: S is more than ``num_frames`` hold.
        """
        num_samples = num_frames * HOP_LENGTH
        if waveforms.shape[1] > num_samples:
            raise ContextError(waveforms.shape[1] / SAMPLING_RATE, num_samples / SAMPLING_RATE)
        with torch.autocast(waveforms.device.type, enabled=False):
            power = self.filters @ self._power(_to_float(waveforms), lengths, num_samples)
            loudest = power.amax(dim=(1, 2), keepdim=True)
            floor = (loudest * DYNAMIC_RANGE).clamp(min=SILENCE)
            spectrograms = torch.maximum(power, floor).log10() / 4 + 1
            if padding == "sound":
                return spectrograms
            beyond = torch.arange(num_frames, device=lengths.device) >= lengths[:, None] // HOP_LENGTH
            return spectrograms.masked_fill(beyond[:, None], 0.0)

    def _power(self, waveforms: Tensor, lengths: Tensor, num_samples: int) -> Tensor:
        """Square the short-time Fourier transform: (B, S) to (B, 201, F), windows centred on their frame."""
        beyond = torch.arange(waveforms.shape[1], device=waveforms.device) >= lengths[:, None]
        silenced = waveforms.masked_fill(beyond, 0.0)
        padded = nn.functional.pad(silenced, (0, num_samples - waveforms.shape[1]))
        half = WINDOW_LENGTH // 2
        reflected = nn.functional.pad(padded, (half, half), mode="reflect")
        # One window more than there are frames: Whisper leaves the last out.
        windows = reflected.unfold(1, WINDOW_LENGTH, HOP_LENGTH)[:, :-1] * self.window
        spectrum: Tensor = torch.fft.rfft(windows)
        return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).transpose(1, 2)


def _to_float(waveforms: Tensor) -> Tensor:
    """Convert to float32 in [-1, 1]; PCM is scaled."""
    if waveforms.dtype == torch.int16:
        return waveforms.float() / FULL_SCALE
    return waveforms.float()
