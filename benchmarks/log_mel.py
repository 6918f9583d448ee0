"""How long does the log-mel spectrogram take on one thread, beside everybody else's?

``python -m benchmarks.log_mel --output FILE``. Each system receives a waveform and the length to pad it to, and returns
the spectrogram of that length; padding is timed, decoding and resampling are not. Peers are called at their leanest
public entry, and if they have none (Hugging Face's two paths) below it. Three comparisons:

- ``same spectrogram, 30 s``: one waveform that fills Whisper's 30 s.
- ``same spectrogram, padded to 30 s`` and ``same spectrogram, trimmed``: utterances of 2 to 15 s, one after the other,
  by all systems at 30 s, and by all systems at the context a model trained on trimmed contexts reads (the next half
  second).
- ``as each is used``: the same utterances, ours trimmed, the peers padded to 30 s, as they do by default.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from pydantic import Field

from benchmarks.common import Row, Timing, describe_machine, print_table, time_interleaved, write_result
from sottovoce.audio.features import log_mel
from sottovoce.config import Config, load_config
from sottovoce.schema import HOP_LENGTH, MAX_CONTEXT_S, SAMPLING_RATE, LogMel, Waveform

System: TypeAlias = Callable[[Waveform, int], LogMel]
"""Return the spectrogram (M, F) of a waveform padded to a number of samples."""

OURS = "sottovoce"
_REFERENCE = "hugging_face_numpy"
_TOLERANCE = 1e-4
_FULL_CONTEXT = round(MAX_CONTEXT_S * SAMPLING_RATE)  # samples
_CONTEXT_STEP = SAMPLING_RATE // 2  # samples: contexts come in half seconds
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


class LogMelBenchmark(Config):
    """How often, and over how many utterances."""

    repetitions: int = Field(default=9, ge=1)
    """Timed calls of each system; the median is reported."""
    num_utterances: int = Field(default=16, ge=1)
    """Utterances of 2 to 15 s, lognormal with median 5 s."""
    output: Path
    """JSON file that receives the result."""


def build_systems(num_mel_bins: int) -> dict[str, System]:
    """Return ours and every peer's, by name."""
    import librosa
    import whisper
    from faster_whisper.feature_extractor import FeatureExtractor
    from transformers import WhisperFeatureExtractor

    hugging_face = WhisperFeatureExtractor(feature_size=num_mel_bins)
    faster_whisper = FeatureExtractor(feature_size=num_mel_bins)

    def librosa_log_mel(waveform: Waveform, num_samples: int) -> LogMel:
        power = librosa.feature.melspectrogram(
            y=_pad(waveform, num_samples),
            sr=SAMPLING_RATE,
            n_fft=400,
            hop_length=HOP_LENGTH,
            n_mels=num_mel_bins,
            pad_mode="reflect",
        )
        logarithm = np.log10(np.maximum(power[:, :-1], 1e-10))
        spectrogram: LogMel = (np.maximum(logarithm, logarithm.max() - 8.0) + 4.0) / 4.0
        return spectrogram

    return {
        OURS: lambda waveform, num_samples: log_mel(
            waveform, num_mel_bins=num_mel_bins, num_frames=num_samples // HOP_LENGTH
        ),
        _REFERENCE: lambda waveform, num_samples: hugging_face._np_extract_fbank_features(
            _pad(waveform, num_samples)[None], "cpu"
        )[0],
        "hugging_face_torch": lambda waveform, num_samples: hugging_face._torch_extract_fbank_features(
            _pad(waveform, num_samples)[None], "cpu"
        )[0],
        "faster_whisper": lambda waveform, num_samples: faster_whisper(_pad(waveform, num_samples), padding=0),
        "openai_whisper": lambda waveform, num_samples: whisper.log_mel_spectrogram(
            waveform, n_mels=num_mel_bins, padding=num_samples - len(waveform)
        ).numpy(),
        "librosa": librosa_log_mel,
    }


def make_speech(num_samples: int, seed: int) -> Waveform:
    """Make tones and noise under a syllable's rhythm; what it says does not change how long it takes."""
    generator = np.random.default_rng(seed)
    time = np.arange(num_samples) / SAMPLING_RATE
    voice = sum(np.sin(2 * np.pi * 110 * harmonic * time) / harmonic for harmonic in range(1, 20))
    rhythm = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    noise = generator.standard_normal(num_samples)
    return np.asarray(0.1 * voice * rhythm + 0.005 * noise, dtype=np.float32)


def make_utterances(count: int) -> list[Waveform]:
    """Make utterances of 2 to 15 s whose lengths are lognormal with a median of 5 s."""
    generator = np.random.default_rng(0)
    durations_s = np.clip(generator.lognormal(mean=np.log(5.0), sigma=0.5, size=count), 2.0, 15.0)
    return [make_speech(round(duration_s * SAMPLING_RATE), seed) for seed, duration_s in enumerate(durations_s)]


def compare_full(*, num_mel_bins: int, repetitions: int) -> list[Row]:
    """Time all systems on one waveform of 30 s."""
    systems, waveform = build_systems(num_mel_bins), make_speech(_FULL_CONTEXT, 0)
    differences = _differences(systems, [(waveform, _FULL_CONTEXT)])
    timings = time_interleaved(
        {name: _drawing(system, [(waveform, _FULL_CONTEXT)]) for name, system in systems.items()},
        repetitions=repetitions,
    )
    return _rows("same spectrogram, 30 s", num_mel_bins, timings, differences)


def compare_short(*, num_mel_bins: int, num_utterances: int, repetitions: int) -> list[Row]:
    """Time all systems on short utterances, at both lengths in turns."""
    systems = build_systems(num_mel_bins)
    utterances = make_utterances(num_utterances)
    inputs = {
        "padded": [(waveform, _FULL_CONTEXT) for waveform in utterances],
        "trimmed": [(waveform, -(-len(waveform) // _CONTEXT_STEP) * _CONTEXT_STEP) for waveform in utterances],
    }
    timings = time_interleaved(
        {
            f"{length} {name}": _drawing(system, pairs)
            for length, pairs in inputs.items()
            for name, system in systems.items()
        },
        repetitions=repetitions,
    )
    padded = {name: timings[f"padded {name}"] for name in systems}
    trimmed = {name: timings[f"trimmed {name}"] for name in systems}
    differences = {length: _differences(systems, pairs) for length, pairs in inputs.items()}
    as_used = padded | {OURS: trimmed[OURS]}
    differences_as_used = differences["padded"] | {OURS: differences["trimmed"][OURS]}
    return [
        *_rows("2-15 s: same spectrogram, padded to 30 s", num_mel_bins, padded, differences["padded"]),
        *_rows("2-15 s: same spectrogram, trimmed", num_mel_bins, trimmed, differences["trimmed"]),
        *_rows("2-15 s: as each is used", num_mel_bins, as_used, differences_as_used),
    ]


def _rows(
    comparison: str, num_mel_bins: int, timings: Mapping[str, Timing], differences: Mapping[str, float]
) -> list[Row]:
    """One row for each system; ours also says how many times faster it is than the reference and the best peer."""
    ours = timings[OURS].median_s
    peers = {name: timing.median_s for name, timing in timings.items() if name != OURS}
    best = min(peers, key=lambda name: peers[name])
    rows: list[Row] = [
        {
            "comparison": comparison,
            "num_mel_bins": num_mel_bins,
            "system": name,
            "median_ms": round(timing.median_s * 1e3, 3),
            "iqr_ms": round(timing.iqr_s * 1e3, 3),
            "times_ours": round(timing.median_s / ours, 2),
            "max_difference": differences[name],
        }
        for name, timing in timings.items()
    ]
    verdict: Row = {"times_faster_than_best": round(peers[best] / ours, 2), "best": best}
    return [{**rows[0], **verdict}, *rows[1:]]


def _differences(systems: Mapping[str, System], pairs: Sequence[tuple[Waveform, int]]) -> dict[str, float]:
    """Return each system's largest difference from the reference; beyond the tolerance its spectrogram is another."""
    largest = dict.fromkeys(systems, 0.0)
    for waveform, num_samples in pairs:
        expected = systems[_REFERENCE](waveform, num_samples)
        for name, system in systems.items():
            spectrogram = system(waveform, num_samples)
            assert spectrogram.shape == expected.shape, name
            largest[name] = max(largest[name], float(np.abs(spectrogram - expected).max()))
    assert max(largest.values()) <= _TOLERANCE, largest
    return largest


def _drawing(system: System, pairs: Sequence[tuple[Waveform, int]]) -> Callable[[], None]:
    def draw() -> None:
        for waveform, num_samples in pairs:
            system(waveform, num_samples)

    return draw


def _pad(waveform: Waveform, num_samples: int) -> Waveform:
    return np.pad(waveform, (0, num_samples - len(waveform)))


def main(settings: LogMelBenchmark) -> None:
    """Run the comparisons and write their result."""
    import torch

    torch.set_num_threads(1)
    results: list[Row] = []
    for num_mel_bins in (80, 128):
        results += compare_full(num_mel_bins=num_mel_bins, repetitions=settings.repetitions)
        results += compare_short(
            num_mel_bins=num_mel_bins, num_utterances=settings.num_utterances, repetitions=settings.repetitions
        )
    packages = ("numpy", "scipy", "torch", "transformers", "faster-whisper", "openai-whisper", "librosa")
    question = "How long does the log-mel spectrogram take on one thread, beside everybody else's?"
    write_result(settings.output, question, results, machine=describe_machine(packages))
    print_table("Log-mel on one thread", results)


def _restart_on_one_thread() -> None:
    """Start this program anew unless the libraries were told to use one thread: they read it when imported."""
    if not _ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | _ONE_THREAD)


if __name__ == "__main__":
    _restart_on_one_thread()
    main(load_config(LogMelBenchmark))
