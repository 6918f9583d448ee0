"""Heartbeats: find the training worker that stands still, name it and replace it.

Every worker notes its current phase as it goes (this only sets two fields). A thread of the worker sends the note to
the run's board every few seconds, without waiting for an answer. A process that is stopped or cut off sends nothing; a
process whose work hangs sends the same note again and again. In a data-parallel run all workers soon wait for the one
that stands still, so the worker to name is not the one that is late but the one that is furthest behind in the run.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import ray

logger = logging.getLogger(__name__)

Phase: TypeAlias = Literal[
    "starting",
    "evaluating",
    "waiting for the other ranks",
    "saving",
    "waiting for data",
    "computing",
    "adding up gradients",
]
"""What a worker does at a step, in this order. An evaluation comes first because it measures the step's weights."""

_ORDER = {phase: index for index, phase in enumerate(get_args(Phase))}
_UNMARKED: tuple[Phase, ...] = ("starting", "saving")  # nothing is noted while gigabytes are loaded or written
_UNMARKED_FACTOR = 10.0  # guess: with the default 50 minutes, in which 18 GB are written at 6 MB/s
_SILENT_S = 100.0  # Ray drops a process that does not answer after 120 s, but names none: see train/resources.py
_HEARTBEATS = 10.0  # in the time after which a silent worker counts as stuck
_MAX_INTERVAL_S = 5.0
_MISSED = 3  # heartbeats after which a worker counts as silent
_ANSWER_S = 30.0  # timeout for the board
_PROBE_S = 2.0  # timeout for a worker that is asked whether its process lives


@dataclass(frozen=True)
class Heartbeat:
    """What one worker sends."""

    rank: int
    node: str
    """IP address."""
    pid: int
    step: int = 0
    """Steps taken."""
    phase: Phase = "starting"
    mark: int = 0
    """Number of notes the worker has made: a higher number is progress, even in the same phase."""

    @property
    def position(self) -> tuple[int, int]:
        """How far the worker is in the run, to compare ranks that wait for each other."""
        return self.step, _ORDER[self.phase]


@dataclass(frozen=True)
class HeartbeatStatus:
    """What the board knows of a worker."""

    heartbeat: Heartbeat
    """The last one."""
    silent_s: float
    """Seconds since it came."""
    unchanged_s: float
    """Seconds since the worker noted anything new."""


@dataclass(frozen=True)
class StuckRank:
    """A worker that stands still."""

    heartbeat: Heartbeat
    stuck_s: float
    is_silent: bool
    """Whether its process sends nothing: it was stopped, or its node is cut off."""

    @property
    def rank(self) -> int:
        """The worker's rank."""
        return self.heartbeat.rank

    def describe(self) -> str:
        """Describe rank, node, process, phase and time in a clause."""
        last, silence = self.heartbeat, ", its process not even answering" if self.is_silent else ""
        return (
            f"rank {last.rank} (process {last.pid} on {last.node}) has stood still for {self.stuck_s:.0f} s at step "
            f"{last.step} while {last.phase}{silence}"
        )


def longest_allowed_s(stuck_after_s: float) -> float:
    """Return the longest time [s] a worker may stand still: while it loads or saves."""
    return stuck_after_s * _UNMARKED_FACTOR


def find_stuck(statuses: Sequence[HeartbeatStatus], *, stuck_after_s: float) -> StuckRank | None:
    """Find the worker that holds up the run.

    A worker that sends nothing comes first. Otherwise it is the one furthest behind, since the ranks ahead of it wait
    for it; among several at the same position it is the one that has noted nothing for longest.

    Args:
        statuses: of all workers of the run.
        stuck_after_s: how long [s] a worker may stand still.

    Returns:
        The worker, or None if none is stuck.
    """
    if not statuses:
        return None
    quietest = max(statuses, key=lambda status: status.silent_s)
    is_silent = quietest.silent_s >= _MISSED * _interval_s(stuck_after_s)
    last = quietest if is_silent else min(statuses, key=lambda status: (status.heartbeat.position, -status.unchanged_s))
    allowed_s = longest_allowed_s(stuck_after_s) if last.heartbeat.phase in _UNMARKED else stuck_after_s
    if last.unchanged_s < allowed_s and last.silent_s < min(stuck_after_s, _SILENT_S):
        return None
    return StuckRank(last.heartbeat, last.unchanged_s, is_silent)


def _interval_s(stuck_after_s: float) -> float:
    return min(_MAX_INTERVAL_S, stuck_after_s / _HEARTBEATS)


class HeartbeatRegistry:
    """The last heartbeats of all workers. A restarted worker replaces the former one of its rank."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Heartbeat, float, float]] = {}  # heartbeat, when it came, when its mark was new
        self._actors: dict[tuple[int, int], Any] = {}
        self._has_newcomers = False

    def join(self, heartbeat: Heartbeat, *, num_ranks: int, actor: Any) -> None:  # noqa: ANN401 - Ray's handles are untyped
        """Expect heartbeats of a worker from now on, and none of ranks its run no longer has."""
        now = time.monotonic()
        for rank in [rank for rank in self._last if rank >= num_ranks or rank == heartbeat.rank]:
            self.leave(self._last[rank][0])
        self._last[heartbeat.rank] = heartbeat, now, now
        self._actors[heartbeat.rank, heartbeat.pid] = actor
        self._has_newcomers = True

    def record(self, heartbeat: Heartbeat) -> None:
        """Record a heartbeat, unless its worker has been replaced."""
        if (heartbeat.rank, heartbeat.pid) not in self._actors:
            return
        before, _, changed = self._last[heartbeat.rank]
        now = time.monotonic()
        self._last[heartbeat.rank] = heartbeat, now, changed if heartbeat.mark == before.mark else now

    def leave(self, heartbeat: Heartbeat) -> None:
        """Expect no more heartbeats of a worker."""
        if self._actors.pop((heartbeat.rank, heartbeat.pid), None) is not None:
            del self._last[heartbeat.rank]

    def clear(self) -> None:
        """Expect no more heartbeats of any worker."""
        self._last.clear()
        self._actors.clear()
        self._has_newcomers = False

    def has_newcomers(self) -> bool:
        """Whether a worker has joined since the last ``clear``, or ever."""
        return self._has_newcomers

    def statuses(self) -> list[HeartbeatStatus]:
        """Return the status of each worker."""
        now = time.monotonic()
        return [HeartbeatStatus(last, now - came, now - changed) for last, came, changed in self._last.values()]

    def actor(self, heartbeat: Heartbeat) -> Any:  # noqa: ANN401 - Ray's handles are untyped
        """Return a worker's actor, or None if it has left."""
        return self._actors.get((heartbeat.rank, heartbeat.pid))


class HeartbeatBoard(Protocol):
    """The handle of a Ray actor that is a ``HeartbeatRegistry``; its methods are called with ``remote``."""

    join: Any
    record: Any
    leave: Any
    clear: Any
    has_newcomers: Any
    statuses: Any
    actor: Any


class HeartbeatSender:
    """A worker's side of the heartbeats. Without a board it sends nothing."""

    def __init__(self, board: HeartbeatBoard | None, *, rank: int, num_ranks: int, stuck_after_s: float | None) -> None:
        self._board = None if stuck_after_s is None else board
        self._num_ranks = num_ranks
        self._interval_s = _interval_s(stuck_after_s or 0.0)
        node: str = "" if self._board is None else ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._heartbeat = Heartbeat(rank, node, os.getpid())
        self._stopped = threading.Event()

    def note(self, phase: Phase, *, step: int | None = None) -> None:
        """Note the current phase. To note the same phase again is progress, too.

        Args:
            phase: what the worker does now.
            step: steps taken so far; unchanged when None.
        """
        before = self._heartbeat
        at = before.step if step is None else step
        self._heartbeat = Heartbeat(before.rank, before.node, before.pid, at, phase, before.mark + 1)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send heartbeats as long as the block lasts."""
        if self._board is None:
            yield
            return
        actor = ray.get_runtime_context().current_actor
        ray.get(self._board.join.remote(self._heartbeat, num_ranks=self._num_ranks, actor=actor))
        thread = threading.Thread(target=self._send, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()
            self._board.leave.remote(self._heartbeat)

    def _send(self) -> None:
        assert self._board is not None
        while not self._stopped.wait(self._interval_s):
            self._board.record.remote(self._heartbeat)


class Killed:
    """The workers of a run that were killed because they stood still.

    Args:
        board: receives the heartbeats of the run's workers.
    """

    def __init__(self, board: HeartbeatBoard) -> None:
        self._board = board
        self.all: list[StuckRank] = []
        """In the order of their deaths."""

    def last_not_outlived(self) -> StuckRank | None:
        """Return the worker killed last, unless the run has gone on since; its death explains what fails now."""
        if not self.all:
            return None
        try:
            has_gone_on = ray.get(self._board.has_newcomers.remote(), timeout=_ANSWER_S)
        except ray.exceptions.RayError as error:  # the board died
            logger.debug("the board does not answer: %s", error)
            return None
        return None if has_gone_on else self.all[-1]


@contextmanager
def watched(board: HeartbeatBoard, *, stuck_after_s: float | None) -> Iterator[Killed]:
    """Watch a run's workers from its driver and kill one that stands still, so that Ray resumes the run.

    Args:
        board: receives their heartbeats.
        stuck_after_s: how long [s] a worker may stand still; None watches none.

    Yields:
        The workers that were killed, up to now whenever it is read.
    """
    killed = Killed(board)
    if stuck_after_s is None:
        yield killed
        return
    stopped = threading.Event()
    arguments = (board, stuck_after_s, stopped, killed)
    thread = threading.Thread(target=_watch, args=arguments, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stopped.set()
        thread.join()


def _watch(board: HeartbeatBoard, stuck_after_s: float, stopped: threading.Event, killed: Killed) -> None:
    while not stopped.wait(_interval_s(stuck_after_s)):
        try:
            stuck = find_stuck(ray.get(board.statuses.remote(), timeout=_ANSWER_S), stuck_after_s=stuck_after_s)
            if stuck is None:
                continue
            actor = ray.get(board.actor.remote(stuck.heartbeat), timeout=_ANSWER_S)
            if actor is None or not _is_alive(actor):
                board.leave.remote(stuck.heartbeat)
                continue
            logger.warning("%s; it is killed, and the run resumes from its last checkpoint", stuck.describe())
            killed.all.append(stuck)
            board.clear.remote()  # Ray ends the others too, and the new ones join by themselves
            ray.kill(actor)
        except ray.exceptions.RayError as error:  # the board died, or the cluster shuts down
            logger.debug("no heartbeats: %s", error)


def _is_alive(actor: Any) -> bool:  # noqa: ANN401 - Ray's handles are untyped
    """Whether a worker's process exists, if only stopped; Ray replaces a dead one by itself."""
    answer = actor.__ray_ready__.remote()
    ready, _ = ray.wait([answer], timeout=_PROBE_S)
    if not ready:
        return True  # its process is stopped
    try:
        ray.get(answer)
    except ray.exceptions.RayActorError:
        return False
    return True
