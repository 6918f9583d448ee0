"""How fast is a recording turned into 16 kHz mono?  ``python -m benchmarks.decode --output FILE``.

Clips of each format are encoded in a temporary folder, and each is decoded, mixed and resampled by us and by others in
turns, in one process and one thread. ``ratio_to_best`` compares with the faster of librosa and PyAV alone.
"""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from av.audio.stream import AudioStream

from benchmarks.common import Row, describe_machine, print_table, time_interleaved, write_result
from sottovoce.audio.decode import read_audio
from sottovoce.config import Config, load_config
from sottovoce.schema import SAMPLING_RATE, Waveform

QUESTION = "How many milliseconds does it take to decode, mix and resample a recording to 16 kHz mono, one thread?"
_BEST_OF = ("librosa", "pyav")


class DecodeBenchmark(Config):
    """Time our decoding against librosa, PyAV and soundfile with soxr."""

    output: Path
    """File that receives the result as JSON."""
    speech: Path | None = None
    """A recording whose content the clips repeat; a voice-like tone with noise when None."""
    durations_s: tuple[float, ...] = (10.0, 30.0)
    """Lengths of the clips."""
    repetitions: int = 15
    """Timed calls of each."""


@dataclass(frozen=True)
class _Format:
    """What a clip is encoded as."""

    name: str
    suffix: str
    rate: int
    num_channels: int
    codec: str | None = None
    """Encoder of FFmpeg's libraries; libsndfile writes 16-bit samples when None."""


_FORMATS = (
    _Format("wav 44.1 kHz stereo", "wav", 44_100, 2),
    _Format("wav 16 kHz mono", "wav", 16_000, 1),
    _Format("flac 44.1 kHz stereo", "flac", 44_100, 2),
    _Format("opus 48 kHz stereo", "ogg", 48_000, 2, "libopus"),
    _Format("mp3 44.1 kHz stereo", "mp3", 44_100, 2, "libmp3lame"),
)


def main(settings: DecodeBenchmark) -> None:
    """Run the benchmark."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # librosa's, which would take time on each call
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        results = [
            _measure(kind, duration_s, Path(folder), settings)
            for kind in _FORMATS
            for duration_s in settings.durations_s
        ]
    write_result(settings.output, QUESTION, results, machine=machine)
    shown = [{name: value for name, value in row.items() if name not in ("iqr_ms", "repetitions")} for row in results]
    print_table("ms to 16 kHz mono", shown)


def _measure(kind: _Format, duration_s: float, folder: Path, settings: DecodeBenchmark) -> Row:
    path = folder / f"{kind.codec or 'pcm'}_{kind.rate}_{duration_s:g}.{kind.suffix}"
    _encode(_speech(settings.speech, kind, duration_s), kind, path)
    readers: dict[str, Callable[[Path], Waveform]] = {
        "ours": read_audio,
        "librosa": _read_librosa,
        "pyav": _read_pyav,
        "soundfile_soxr": _read_soundfile,
    }
    for name, read in readers.items():
        _check(name, read(path), duration_s)
    timings = time_interleaved(
        {name: lambda read=read: read(path) for name, read in readers.items()},  # type: ignore[misc]
        repetitions=settings.repetitions,
    )
    milliseconds = {name: timing.median_s * 1e3 for name, timing in timings.items()}
    ours = milliseconds.pop("ours")
    return {
        "format": kind.name,
        "duration_s": duration_s,
        "ours_ms": ours,
        "peers": milliseconds,
        "ratio_to_best": min(milliseconds[name] for name in _BEST_OF) / ours,
        "iqr_ms": {name: timing.iqr_s * 1e3 for name, timing in timings.items()},
        "repetitions": settings.repetitions,
    }


def _check(name: str, waveform: Waveform, duration_s: float) -> None:
    """Refuse to time a reader that reads something else; mp3 may have 0.1 s of padding."""
    assert waveform.ndim == 1, name
    assert abs(len(waveform) / SAMPLING_RATE - duration_s) < 0.1, name


def _read_librosa(path: Path) -> Waveform:
    import librosa  # of the benchmarks extra

    waveform, _ = librosa.load(path, sr=SAMPLING_RATE, mono=True)
    return np.asarray(waveform)


def _read_pyav(path: Path) -> Waveform:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLING_RATE)
        frames = [frame for decoded in container.decode(audio=0) for frame in resampler.resample(decoded)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames], dtype=np.float32)


def _read_soundfile(path: Path) -> Waveform:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, SAMPLING_RATE))


def _speech(recording: Path | None, kind: _Format, duration_s: float) -> np.ndarray:
    """Return (N, C) float32 at the format's rate; channels differ, or encoders would see one."""
    num_samples = round(duration_s * kind.rate)
    random = np.random.default_rng(0)
    if recording is None:
        mono = _voice(random, num_samples, kind.rate)
    else:
        samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
        mono = np.resize(soxr.resample(samples.mean(axis=1), rate, kind.rate), num_samples)
    channels = [gain * mono + 1e-3 * random.standard_normal(num_samples) for gain in (1.0, 0.8)[: kind.num_channels]]
    return np.stack(channels, axis=1).clip(-1, 1).astype(np.float32)


def _voice(random: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Make a wandering tone with harmonics, loud and soft in turns of 0.1 s."""
    pitch_hz = 120 + 30 * np.sin(2 * np.pi * 0.7 * np.arange(num_samples) / rate)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
    loudness = np.repeat(random.uniform(0.0, 0.3, num_samples * 10 // rate + 1), rate // 10)[:num_samples]
    return np.asarray(loudness * voice)


def _encode(samples: np.ndarray, kind: _Format, path: Path) -> None:
    if kind.codec is None:
        soundfile.write(path, samples, kind.rate, subtype="PCM_16")
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=kind.rate, layout="stereo")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = kind.rate
        to_codec = av.AudioResampler(format=stream.codec_context.format, layout="stereo", rate=kind.rate)
        for piece in to_codec.resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(load_config(DecodeBenchmark))
