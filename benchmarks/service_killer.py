"""Kill the processes of a service that this process started, and measure how soon it is whole again."""

import logging
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import psutil
from ray import serve as ray_serve
from ray.serve.schema import ApplicationStatus, ProxyStatus

from benchmarks.common import Row
from serve.launch import APP_NAME

Kind: TypeAlias = Literal["gateway", "transcriber", "proxy", "controller"]

TITLES: Mapping[Kind, str] = MappingProxyType(
    {
        "gateway": f"ray::ServeReplica:{APP_NAME}:Gateway",
        "transcriber": f"ray::ServeReplica:{APP_NAME}:Transcriber",
        "proxy": "ray::ProxyActor",
        "controller": "ray::ServeController",
    }
)
"""How Ray names the processes of each kind."""

logger = logging.getLogger("sottovoce.benchmarks.serve_kills")  # shown by setup_logging, as the package is

_POLL_S = 0.05
_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One death and what followed."""

    kind: Kind
    at_s: float
    """Monotonic time."""
    answers_after_s: float
    """Until a request that was sent after the death was answered."""
    whole_after_s: float | None
    """Until the killed process was replaced and Serve reported every process as healthy; None if nobody waited."""


def service_processes(kind: Kind) -> list[psutil.Process]:
    """Return the processes of one kind, of the Ray that this process started."""
    return [child for child in psutil.Process().children(recursive=True) if _title(child).startswith(TITLES[kind])]


def kill_at_random(
    probe: Callable[[], bool],
    *,
    kinds: Sequence[Kind],
    num_kills: int,
    pause_s: float,
    max_s: float,
    waits_until_whole: bool,
    seed: int = 0,
) -> list[Kill]:
    """Kill processes one after the other until there were enough, or the time is up.

    Args:
        probe: sends one request; returns whether it was answered.
        kinds: of the processes that may die, equally often.
        num_kills: ends after so many.
        pause_s: longest pause between a recovery and the next death.
        max_s: ends after so many seconds.
        waits_until_whole: whether the next death waits until the process was replaced.
        seed: of who dies when.

    Raises:
        TimeoutError: the service did not recover within a minute.
    """
    generator = random.Random(seed)
    kills: list[Kill] = []
    until = time.monotonic() + max_s
    next_kinds: list[Kind] = []
    while len(kills) < num_kills and time.monotonic() < until:
        next_kinds = next_kinds or generator.sample(kinds, len(kinds))
        if not service_processes(next_kinds[-1]):  # it has not come back yet
            time.sleep(_POLL_S)
            continue
        kills.append(_kill_one(next_kinds.pop(), probe, generator, waits_until_whole=waits_until_whole))
        time.sleep(generator.uniform(0.0, pause_s))
    return kills


def summarize(kills: Iterable[Kill]) -> list[Row]:
    """Return one row for each kind: how many died, and median and longest recovery in seconds."""
    rows: list[Row] = []
    for kind in TITLES:
        own = [kill for kill in kills if kill.kind == kind]
        if own:
            whole = [kill.whole_after_s for kill in own if kill.whole_after_s is not None]
            rows.append(
                {
                    "killed": kind,
                    "kills": len(own),
                    "answers_after_s": _spread([kill.answers_after_s for kill in own]),
                    "whole_after_s": _spread(whole),
                }
            )
    return rows


def _kill_one(kind: Kind, probe: Callable[[], bool], generator: random.Random, *, waits_until_whole: bool) -> Kill:
    before = service_processes(kind)
    victim = generator.choice(before)
    victim.send_signal(signal.SIGKILL)
    at_s = time.monotonic()
    answers_after_s = _wait_for(probe, since_s=at_s)
    whole_after_s = None
    if waits_until_whole:
        whole_after_s = _wait_for(lambda: _is_replaced(kind, victim, len(before)) and is_whole(), since_s=at_s)
    logger.info("%s killed: answers after %.1f s, whole after %s s", kind, answers_after_s, whole_after_s)
    return Kill(kind=kind, at_s=at_s, answers_after_s=answers_after_s, whole_after_s=whole_after_s)


def is_whole() -> bool:
    """Return whether Serve reports every proxy and replica as healthy; waits for a controller that restarts."""
    status = ray_serve.status()
    replicas = [set(one.replica_states) for one in status.applications[APP_NAME].deployments.values()]
    return (
        status.applications[APP_NAME].status == ApplicationStatus.RUNNING
        and all(states <= {"RUNNING"} for states in replicas)
        and bool(status.proxies)
        and all(proxy == ProxyStatus.HEALTHY for proxy in status.proxies.values())
    )


def _is_replaced(kind: Kind, victim: psutil.Process, num_before: int) -> bool:
    return len({process.pid for process in service_processes(kind)} - {victim.pid}) >= num_before


def _wait_for(condition: Callable[[], bool], *, since_s: float) -> float:
    while not condition():
        if time.monotonic() - since_s > _LIMIT_S:
            raise TimeoutError(f"the service did not recover within {_LIMIT_S:g} s")
        time.sleep(_POLL_S)
    return time.monotonic() - since_s


def _title(process: psutil.Process) -> str:
    """Return the name that Ray writes over a worker's command; empty for a process that ended."""
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return ""
    return command[0] if command else ""


def _spread(seconds: Sequence[float]) -> Row:
    if not seconds:
        return {}
    return {"median": round(statistics.median(seconds), 2), "max": round(max(seconds), 2)}
