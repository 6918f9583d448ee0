"""Find the training worker that stands still, and name it.

Every worker notes what it is doing as it goes (free: it sets two fields), and a thread of its own posts the note to
the run's board every few seconds, without waiting for an answer. A process that is stopped or cut off posts nothing;
one whose work hangs posts the same note again and again. In a data-parallel run all workers soon wait for the one that
stands still, so the one to name is not whoever is late but whoever stands furthest back in the run.
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
"""What a worker does at a step, in this order: an evaluation belongs to the weights it measures."""

_ORDER = {phase: place for place, phase in enumerate(get_args(Phase))}
_UNMARKED: tuple[Phase, ...] = ("starting", "saving")  # nothing is noted while gigabytes are loaded or written
_UNMARKED_FACTOR = 10.0  # guess: with the default 50 minutes, in which 18 GB are written at 6 MB/s
_SILENT_S = 100.0  # Ray gives a process that does not answer up after 120 s, but names none: see train/scaling.py
_BEATS = 10.0  # in the time after which a silent worker counts as stuck
_MAX_INTERVAL_S = 5.0
_MISSED = 3  # beats after which a worker counts as silent
_ANSWER_S = 30.0  # what the board gets to answer
_PROBE_S = 2.0  # what a worker gets to answer whether its process lives


@dataclass(frozen=True)
class Beat:
    """What one worker posts."""

    rank: int
    node: str
    """IP address."""
    pid: int
    step: int = 0
    """Steps taken."""
    phase: Phase = "starting"
    mark: int = 0
    """Counts what the worker has noted: a higher number is progress, even in the same phase."""

    @property
    def place(self) -> tuple[int, int]:
        """How far the worker is; ranks that wait for each other compare."""
        return self.step, _ORDER[self.phase]


@dataclass(frozen=True)
class Pulse:
    """What the board knows of a worker."""

    beat: Beat
    silent_s: float
    """Since it posted."""
    unchanged_s: float
    """Since it noted anything new."""


@dataclass(frozen=True)
class StuckRank:
    """A worker that stands still."""

    beat: Beat
    stuck_s: float
    is_silent: bool
    """Its process posts nothing: it was stopped, or its node is cut off."""

    @property
    def rank(self) -> int:
        """The worker's."""
        return self.beat.rank

    def describe(self) -> str:
        """Give rank, node, process, phase and time in a clause."""
        beat, silence = self.beat, ", its process not even answering" if self.is_silent else ""
        return (
            f"rank {beat.rank} (process {beat.pid} on {beat.node}) has stood still for {self.stuck_s:.0f} s at step "
            f"{beat.step} while {beat.phase}{silence}"
        )


def longest_allowed_s(stuck_after_s: float) -> float:
    """Give how long a worker may stand still at most: while it loads or saves."""
    return stuck_after_s * _UNMARKED_FACTOR


def find_stuck(pulses: Sequence[Pulse], *, stuck_after_s: float) -> StuckRank | None:
    """Tell which worker holds up the run, if one does.

    One that posts nothing comes first. Otherwise it is the one furthest back, since ranks ahead of it wait for it, and
    at the same place the one that noted nothing for longest.

    Args:
        pulses: of all workers of the run.
        stuck_after_s: how long one may stand still.
    """
    if not pulses:
        return None
    quietest = max(pulses, key=lambda pulse: pulse.silent_s)
    is_silent = quietest.silent_s >= _MISSED * _interval_s(stuck_after_s)
    last = quietest if is_silent else min(pulses, key=lambda pulse: (pulse.beat.place, -pulse.unchanged_s))
    allowed_s = longest_allowed_s(stuck_after_s) if last.beat.phase in _UNMARKED else stuck_after_s
    if last.unchanged_s < allowed_s and last.silent_s < min(stuck_after_s, _SILENT_S):
        return None
    return StuckRank(last.beat, last.unchanged_s, is_silent)


def _interval_s(stuck_after_s: float) -> float:
    return min(_MAX_INTERVAL_S, stuck_after_s / _BEATS)


class PulseBook:
    """What the board keeps of all workers; a worker that is started anew takes the place of the former of its rank."""

    def __init__(self) -> None:
        self._heard: dict[int, tuple[Beat, float, float]] = {}  # beat, when it came, when its mark was new
        self._actors: dict[tuple[int, int], Any] = {}
        self._has_newcomers = False

    def join(self, beat: Beat, *, num_ranks: int, actor: Any) -> None:  # noqa: ANN401 - Ray's handles are untyped
        """Expect beats of a worker from now on, and none of ranks its run no longer has."""
        now = time.monotonic()
        for rank in [rank for rank in self._heard if rank >= num_ranks or rank == beat.rank]:
            self.leave(self._heard[rank][0])
        self._heard[beat.rank] = beat, now, now
        self._actors[beat.rank, beat.pid] = actor
        self._has_newcomers = True

    def beat(self, beat: Beat) -> None:
        """Note what a worker posted, unless it has been replaced."""
        if (beat.rank, beat.pid) not in self._actors:
            return
        before, _, changed = self._heard[beat.rank]
        now = time.monotonic()
        self._heard[beat.rank] = beat, now, changed if beat.mark == before.mark else now

    def leave(self, beat: Beat) -> None:
        """Expect no more of a worker."""
        if self._actors.pop((beat.rank, beat.pid), None) is not None:
            del self._heard[beat.rank]

    def clear(self) -> None:
        """Expect no more of anyone."""
        self._heard.clear()
        self._actors.clear()
        self._has_newcomers = False

    def has_newcomers(self) -> bool:
        """Tell whether a worker has joined since ``clear`` was called last, if it ever was."""
        return self._has_newcomers

    def pulses(self) -> list[Pulse]:
        """Give all workers'."""
        now = time.monotonic()
        return [Pulse(beat, now - came, now - changed) for beat, came, changed in self._heard.values()]

    def actor(self, beat: Beat) -> Any:  # noqa: ANN401 - Ray's handles are untyped
        """Give a worker's actor, None where it has left."""
        return self._actors.get((beat.rank, beat.pid))


class PulseBoard(Protocol):
    """A Ray actor's handle of what holds a ``PulseBook``; its methods carry ``remote``."""

    join: Any
    beat: Any
    leave: Any
    clear: Any
    has_newcomers: Any
    pulses: Any
    actor: Any


class Heart:
    """A worker's end; without a board nothing is posted."""

    def __init__(self, board: PulseBoard | None, *, rank: int, num_ranks: int, stuck_after_s: float | None) -> None:
        self._board = None if stuck_after_s is None else board
        self._num_ranks = num_ranks
        self._interval_s = _interval_s(stuck_after_s or 0.0)
        node: str = "" if self._board is None else ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._beat = Beat(rank, node, os.getpid())
        self._stopped = threading.Event()

    def note(self, phase: Phase, *, step: int | None = None) -> None:
        """Note what is done now; a phase noted again says that it goes on.

        Args:
            phase: what.
            step: steps taken so far; unchanged when None.
        """
        before = self._beat
        at = before.step if step is None else step
        self._beat = Beat(before.rank, before.node, before.pid, at, phase, before.mark + 1)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Post as long as the block lasts."""
        if self._board is None:
            yield
            return
        actor = ray.get_runtime_context().current_actor
        ray.get(self._board.join.remote(self._beat, num_ranks=self._num_ranks, actor=actor))
        thread = threading.Thread(target=self._post, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()
            self._board.leave.remote(self._beat)

    def _post(self) -> None:
        assert self._board is not None
        while not self._stopped.wait(self._interval_s):
            self._board.beat.remote(self._beat)


class Killed:
    """The workers of a run that were killed because they stood still.

    Args:
        board: what the run's workers post to.
    """

    def __init__(self, board: PulseBoard) -> None:
        self._board = board
        self.all: list[StuckRank] = []
        """In the order of their deaths."""

    def last_not_outlived(self) -> StuckRank | None:
        """Give the last one, if the run has not gone on since: what fails then fails because it was killed."""
        if not self.all:
            return None
        try:
            has_gone_on = ray.get(self._board.has_newcomers.remote(), timeout=_ANSWER_S)
        except ray.exceptions.RayError as error:  # a board that died
            logger.debug("the board does not answer: %s", error)
            return None
        return None if has_gone_on else self.all[-1]


@contextmanager
def watched(board: PulseBoard, *, stuck_after_s: float | None) -> Iterator[Killed]:
    """Watch a run's workers from its driver; kill one that stands still, so that Ray resumes the run.

    Args:
        board: what they post to.
        stuck_after_s: how long one may stand still; nothing is watched when None.

    Yields:
        The workers that were killed; they become more.
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


def _watch(board: PulseBoard, stuck_after_s: float, stopped: threading.Event, killed: Killed) -> None:
    while not stopped.wait(_interval_s(stuck_after_s)):
        try:
            stuck = find_stuck(ray.get(board.pulses.remote(), timeout=_ANSWER_S), stuck_after_s=stuck_after_s)
            if stuck is None:
                continue
            actor = ray.get(board.actor.remote(stuck.beat), timeout=_ANSWER_S)
            if actor is None or not _is_alive(actor):
                board.leave.remote(stuck.beat)
                continue
            logger.warning("%s; it is killed, and the run resumes from its last checkpoint", stuck.describe())
            killed.all.append(stuck)
            board.clear.remote()  # Ray ends the others too, and new ones join by themselves
            ray.kill(actor)
        except ray.exceptions.RayError as error:  # a board that died, or a cluster that goes down
            logger.debug("no heartbeats: %s", error)


def _is_alive(actor: Any) -> bool:  # noqa: ANN401 - Ray's handles are untyped
    """Tell a worker that stands still from one that has died, which Ray replaces by itself."""
    answer = actor.__ray_ready__.remote()
    ready, _ = ray.wait([answer], timeout=_PROBE_S)
    if not ready:
        return True  # its process is stopped
    try:
        ray.get(answer)
    except ray.exceptions.RayActorError:
        return False
    return True
