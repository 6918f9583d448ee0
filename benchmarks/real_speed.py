"""Speed of ``real_whisper``: our engines and faster-whisper in turns, in one process, with as many threads."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.common import Row, Timing, time_interleaved
from benchmarks.whisper_systems import ModelFolders, ModelName, System, load_system
from sottovoce.audio.decode import read_audio
from sottovoce.schema import SAMPLING_RATE, Utterance


@dataclass(frozen=True)
class Timed:
    """A system, and how many utterances it gets at once."""

    system: System
    batch_size: int = 1

    @property
    def name(self) -> str:
        """What the timing is called."""
        return f"{self.system.name}-{self.batch_size}"


_BASE_TORCH = Timed(System(model="base", engine="sottovoce", variant="torch"))
_BASE_INT8 = Timed(System(model="base", engine="sottovoce", variant="int8"))
_BASE_PEER_FP32 = Timed(System(model="base", engine="faster-whisper", variant="float32"))
_BASE_PEER_INT8 = Timed(System(model="base", engine="faster-whisper", variant="int8"))
_TUNED_TORCH = Timed(System(model="fine-tuned", engine="sottovoce", variant="torch"))
_TUNED_FP32 = Timed(System(model="fine-tuned", engine="sottovoce", variant="fp32"))
_TUNED_INT8 = Timed(System(model="fine-tuned", engine="sottovoce", variant="int8"))
_TUNED_PEER_INT8 = Timed(System(model="fine-tuned", engine="faster-whisper", variant="int8"))
_TUNED_INT8_BATCHED = Timed(_TUNED_INT8.system, batch_size=8)
_TUNED_PEER_INT8_BATCHED = Timed(_TUNED_PEER_INT8.system, batch_size=8)

TIMED = (
    _BASE_TORCH,
    _BASE_INT8,
    _BASE_PEER_FP32,
    _BASE_PEER_INT8,
    _TUNED_TORCH,
    _TUNED_FP32,
    _TUNED_INT8,
    _TUNED_INT8_BATCHED,
    _TUNED_PEER_INT8,
    _TUNED_PEER_INT8_BATCHED,
)

_PAIRS = (
    ("base, float32, both padded to 30 s", _BASE_TORCH, (_BASE_PEER_FP32,)),
    ("base, int8, both padded to 30 s", _BASE_INT8, (_BASE_PEER_INT8,)),
    ("fine-tuned, int8, ours trimmed, one utterance at a time", _TUNED_INT8, (_TUNED_PEER_INT8,)),
    (
        "fine-tuned, int8, ours trimmed and eight at once, the peer as it is faster",
        _TUNED_INT8_BATCHED,
        (_TUNED_PEER_INT8, _TUNED_PEER_INT8_BATCHED),
    ),
    ("fine-tuned by us and base by the peer, int8, one at a time", _TUNED_INT8, (_BASE_PEER_INT8,)),
)
"""What is compared, ours, and the peer's candidates, of which the fastest counts."""


def measure_speed(
    utterances: Sequence[Utterance],
    folders: Mapping[ModelName, ModelFolders],
    *,
    num_threads: int,
    repetitions: int,
) -> list[Row]:
    """Time all systems in turns on the same utterances, which lie decoded in memory; log-mel is within the time.

    Args:
        utterances: what is recognized, each at most 30 s.
        folders: of each model.
        num_threads: threads of each engine.
        repetitions: timed rounds, after one that does not count.

    Returns:
        A row of each system, then the ratios to the peer: how many times as long the peer takes.

    Raises:
        CheckpointError: a system that cannot be loaded.
        AudioError: a recording that cannot be read.
    """
    conditions = {"threads": num_threads, "repetitions": repetitions, "load_1_min_before": os.getloadavg()[0]}
    waveforms = [
        read_audio(one.audio, start_s=one.start_s, duration_s=one.duration_s)
        for one in sorted(utterances, key=lambda one: one.duration_s)
    ]
    audio_s = sum(waveform.shape[0] for waveform in waveforms) / SAMPLING_RATE
    loaded = {timed.system: load_system(timed.system, folders, num_threads=num_threads) for timed in TIMED}
    calls = {timed.name: partial(loaded[timed.system], waveforms, batch_size=timed.batch_size) for timed in TIMED}
    timings = time_interleaved(calls, repetitions=repetitions)
    conditions |= {"num_utterances": len(waveforms), "audio_s": audio_s}
    return [
        *(_row(timed, timings[timed.name], audio_s=audio_s) | conditions for timed in TIMED),
        *(_ratio(what, timings[ours.name], [timings[one.name] for one in peers]) for what, ours, peers in _PAIRS),
    ]


def _row(timed: Timed, timing: Timing, *, audio_s: float) -> dict[str, object]:
    return {
        "what": "speed",
        **timed.system.describe(),
        "batch_size": timed.batch_size,
        "rtfx": audio_s / timing.median_s,
        "median_s": timing.median_s,
        "iqr_s": timing.iqr_s,
    }


def _ratio(what: str, ours: Timing, peers: Sequence[Timing]) -> Row:
    """Compare medians; the range is that of the quartiles against each other."""
    peer = min(peers, key=lambda one: one.median_s)
    return {
        "what": f"speed ratio: {what}",
        "ratio": peer.median_s / ours.median_s,
        "ratio_low": peer.q1_s / ours.q3_s,
        "ratio_high": peer.q3_s / ours.q1_s,
    }
