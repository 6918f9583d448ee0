"""Recordings written by a real FFmpeg, the binary of the imageio-ffmpeg wheel."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from scipy.signal import butter, correlate, sosfilt

RATE = 16_000


def voice(duration_s: float = 1.0) -> np.ndarray:
    """A wandering tone with harmonics below 3.4 kHz, loud and soft in turns of 0.1 s: (S,) float32 at 16 000 Hz.

    Every codec at every rate can keep it, and it is like itself at no other place.
    """
    random = np.random.default_rng(0)
    num_samples = round(duration_s * RATE)
    pitch_hz = 150.0 + 60.0 * np.cumsum(random.standard_normal(num_samples)) / np.sqrt(num_samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE
    tone = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 15))
    loudness = np.interp(np.arange(num_samples), np.arange(0, num_samples + 1_600, 1_600), random.uniform(
        0.05, 0.4, num_samples // 1_600 + 1))  # fmt: skip
    return np.asarray(0.5 * sosfilt(butter(6, 3_400, fs=RATE, output="sos"), loudness * tone), np.float32)


def run_ffmpeg(*arguments: str | Path, data: bytes | None = None) -> bytes:
    """Run FFmpeg and give what it wrote to its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def encode(samples: np.ndarray, path: Path, *options: str, rate: int = RATE) -> bytes:
    """Write (S,) or (S, C) float32 in the format of the path's ending, and give the file's bytes."""
    run_ffmpeg(*_raw_input(samples, rate), *options, path, data=samples.astype("<f4").tobytes())
    return path.read_bytes()


def encode_all(samples: np.ndarray, folder: Path, options: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """Write (S,) or (S, C) float32 at 16 000 Hz to many files by one FFmpeg, and give each name's bytes."""
    outputs = [argument for name, chosen in options.items() for argument in (*chosen, folder / name)]
    run_ffmpeg(*_raw_input(samples, RATE), *outputs, data=samples.astype("<f4").tobytes())
    return {name: (folder / name).read_bytes() for name in options}


def encode_to_pipe(samples: np.ndarray, container: str, *options: str, rate: int = RATE) -> bytes:
    """Write to a pipe, where no header can be completed afterwards."""
    raw = samples.astype("<f4").tobytes()
    return run_ffmpeg(*_raw_input(samples, rate), *options, "-f", container, "pipe:1", data=raw)


def likeness(original: np.ndarray, decoded: np.ndarray) -> tuple[int, float]:
    """Find by how many samples ``decoded`` is late, and its signal-to-noise ratio [dB] at its best level."""
    num_samples = min(len(original), len(decoded))
    products = correlate(decoded[:num_samples], original[:num_samples], method="fft")
    late = int(np.argmax(np.abs(products))) - num_samples + 1
    first, second = (original, decoded[late:]) if late >= 0 else (original[-late:], decoded)
    num_samples = min(len(first), len(second))
    first, second = first[:num_samples].astype(np.float64), second[:num_samples].astype(np.float64)
    gain = first @ second / (first @ first)
    noise = np.sum(np.square(second - gain * first))
    return late, float(10 * np.log10(np.sum(np.square(gain * first)) / max(noise, 1e-12)))


def _raw_input(samples: np.ndarray, rate: int) -> tuple[str, ...]:
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    return ("-f", "f32le", "-ar", str(rate), "-ac", str(num_channels), "-i", "pipe:0")
