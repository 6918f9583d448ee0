"""Report of a load: percentiles, failures and memory as rows, and a plot."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks.common import Row
from benchmarks.load_clients import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PERCENTILES = (50, 90, 95, 99, 100)
_WARM_UP = 0.1  # of the run: buffers grow until every length has come once
_REPLICA = "ray::ServeReplica:"  # Serve 2.60's name of a replica's process; the deployment's name is behind it
_DEPLOYMENTS = ("Gateway", "Transcriber")


@dataclass(frozen=True)
class MemorySample:
    """Memory of all replicas of each deployment at one time."""

    at_s: float
    rss_bytes: dict[str, int]
    """By deployment."""


def sample_memory(at_s: float) -> MemorySample:
    """Read the resident memory of the replicas that this process's own Ray runs."""
    rss_bytes = dict.fromkeys(_DEPLOYMENTS, 0)
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()
            name = next(
                (one for one in _DEPLOYMENTS if command and command[0].startswith(_REPLICA) and one in command[0]), None
            )
            if name is not None:
                rss_bytes[name] += process.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            continue
    return MemorySample(at_s, rss_bytes)


def summarize(outcomes: Sequence[Outcome], *, deadline_s: float, deadline_per_audio_s: float = 0.0) -> list[Row]:
    """Return one row for all requests, and one for each length of recording.

    Args:
        outcomes: of all requests.
        deadline_s: the service's deadline, in seconds.
        deadline_per_audio_s: seconds that each second of audio adds to it.
    """
    took_s = max((one.started_s + one.seconds for one in outcomes), default=1.0)
    groups = list(dict.fromkeys(one.group for one in outcomes))
    rows = {"all": list(outcomes)} | {group: [one for one in outcomes if one.group == group] for group in groups}
    late = {id(one) for one in outcomes if one.seconds > deadline_s + deadline_per_audio_s * one.audio_s}
    return [{"what": what, **_row(rows[what], took_s=took_s, late=late)} for what in rows]


def _row(outcomes: Sequence[Outcome], *, took_s: float, late: Set[int]) -> dict[str, object]:
    answered = [one for one in outcomes if one.is_answered]
    refused = [one for one in outcomes if one.is_refused]
    lost = [one for one in outcomes if one.is_lost]
    audio_s = sum(one.audio_s for one in answered)
    return {
        "requests": len(outcomes),
        "answered": len(answered),
        "refused": len(refused),
        "lost": len(lost),
        "reasons": dict(Counter(f"{one.status} {one.reason}" for one in outcomes if not one.is_answered)),
        "late": sum(id(one) in late for one in answered),
        "other_texts": sum(not one.is_same for one in answered),
        "audio_s": round(audio_s, 1),
        "rtfx": round(audio_s / took_s, 2),
        "answered_s": _percentiles(answered),
        "refused_s": _percentiles(refused),
    }


def _percentiles(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return percentiles of the seconds; none without outcomes. ``p100`` is the longest."""
    if not outcomes:
        return {}
    values = np.percentile([one.seconds for one in outcomes], _PERCENTILES)
    return {f"p{name}": round(float(value), 3) for name, value in zip(_PERCENTILES, values, strict=True)}


def summarize_memory(samples: Sequence[MemorySample]) -> list[Row]:
    """Return a row for each deployment: memory after the warm-up and at the end, means of a tenth of the run each."""
    if not samples:
        return []
    end_s = samples[-1].at_s
    first = [one for one in samples if _WARM_UP * end_s <= one.at_s <= 2 * _WARM_UP * end_s] or samples[:1]
    last = [one for one in samples if one.at_s >= (1.0 - _WARM_UP) * end_s]
    return [_memory_row(name, samples, first, last) for name in _DEPLOYMENTS]


def _memory_row(
    name: str, samples: Sequence[MemorySample], first: Sequence[MemorySample], last: Sequence[MemorySample]
) -> Row:
    before, after = (float(np.mean([one.rss_bytes[name] for one in some])) for some in (first, last))
    return {
        "what": f"memory of {name}",
        "mib_after_warm_up": round(before / 2**20, 1),
        "mib_at_end": round(after / 2**20, 1),
        "mib_peak": round(max(one.rss_bytes[name] for one in samples) / 2**20, 1),
        "growth": round(after / before - 1.0, 4) if before else None,
        "samples": [[round(one.at_s, 1), round(one.rss_bytes[name] / 2**20, 1)] for one in samples],
    }


def write_plot(path: Path, outcomes: Sequence[Outcome], samples: Sequence[MemorySample]) -> None:
    """Draw seconds of each request and memory over time, as SVG."""
    from matplotlib.figure import Figure  # here: a second of imports that a test of the clients does not need

    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw_requests(upper, outcomes)
    for name in _DEPLOYMENTS:
        lower.plot([one.at_s for one in samples], [one.rss_bytes[name] / 2**20 for one in samples], label=name)
    lower.set(xlabel="seconds", ylabel="resident memory, MiB")
    lower.set_ylim(bottom=0.0)
    lower.legend(loc="lower right")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_requests(axes: "Axes", outcomes: Sequence[Outcome]) -> None:
    kinds = {
        group: [one for one in outcomes if one.group == group and one.is_answered]
        for group in sorted({o.group for o in outcomes})
    }
    kinds |= {"refused": [one for one in outcomes if one.is_refused], "lost": [one for one in outcomes if one.is_lost]}
    for name, some in kinds.items():
        if some:
            marker = "x" if name in ("refused", "lost") else "."
            axes.scatter(
                [one.started_s for one in some], [one.seconds for one in some], s=12, marker=marker, label=name
            )
    axes.set(ylabel="seconds to the answer", yscale="log")
    axes.legend(loc="upper right")
