"""Show a run's progress where its driver runs: a bar on a terminal, a line every few seconds in a log.

Progress bars of the workers themselves would reach the driver line by line and with prefixes. So the first rank posts
numbers to a small actor, and the driver draws them.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
import ray.train
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sottovoce.train.health.heartbeat import HeartbeatBoard, HeartbeatRegistry, HeartbeatSender

logger = logging.getLogger(__name__)

_NAMESPACE = "sottovoce"
_BAR_INTERVAL_S = 0.5
_LINE_INTERVAL_S = 5.0
_ANSWER_S = 10.0  # timeout for the board


@dataclass(frozen=True)
class Snapshot:
    """The progress of a run."""

    phase: str = "starting workers"
    step: int = 0
    num_steps: int = 0
    loss: float | None = None
    """Mean over the last steps."""
    steps_per_s: float = 0.0
    """Over the last steps, like the two that follow."""
    audio_s_per_s: float = 0.0
    """Seconds of speech trained on per second, over all workers."""
    data_wait: float = 0.0
    """Fraction of the time in which the worker that waited most had no batch to go on with."""
    skipped_steps: int = 0
    """Steps that changed no weights because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """See ``SkippedSteps``."""
    evaluations: tuple[str, ...] = ()
    """One line per evaluation so far."""

    @property
    def remaining_s(self) -> float:
        """Seconds of training left at the present pace, without evaluations."""
        return (self.num_steps - self.step) / self.steps_per_s if self.steps_per_s else 0.0

    def describe(self) -> str:
        """Describe the progress in a few words."""
        if not self.steps_per_s or self.loss is None:
            return self.phase
        pace = f"{self.steps_per_s:.2f} steps/s, {self.audio_s_per_s:.0f} audio-s/s, {self.data_wait:.1%} data wait"
        return f"{self.phase}: loss {self.loss:.3f}, {pace}{self._describe_skipped()}"

    def _describe_skipped(self) -> str:
        if not self.skipped_steps:
            return ""
        in_a_row = f" ({self.skipped_in_a_row} in a row)" if self.skipped_in_a_row else ""
        return f", {self.skipped_steps} steps skipped{in_a_row}"


class BoardHandle(HeartbeatBoard, Protocol):
    """The handle of a Ray actor that is a ``ProgressBoard``; its methods are called with ``remote``."""

    post: Any
    read: Any
    mark_started: Any
    has_started: Any


class ProgressBoard(HeartbeatRegistry):
    """The actor between workers and driver: it holds the first rank's progress and all ranks' heartbeats."""

    def __init__(self) -> None:
        super().__init__()
        self._snapshot = Snapshot()
        self._has_started = False

    def mark_started(self) -> None:
        """Note that a worker of the run has been scheduled."""
        self._has_started = True

    def has_started(self) -> bool:
        """Whether a worker of the run was ever scheduled."""
        return self._has_started

    def post(self, snapshot: Snapshot) -> None:
        """Replace the progress that the driver reads."""
        self._snapshot = snapshot

    def read(self) -> Snapshot:
        """Return the latest progress."""
        return self._snapshot


class ProgressPost:
    """The first rank's side of the board. Posting never waits, and does nothing on other ranks."""

    def __init__(self, board: BoardHandle | None) -> None:
        self._board = board
        self._snapshot = Snapshot()

    def update(self, **changes: object) -> None:
        """Post the fields of a ``Snapshot`` that have changed."""
        self._snapshot = replace(self._snapshot, **changes)  # type: ignore[arg-type]  # a wrong field fails at once
        if self._board is not None:
            self._board.post.remote(self._snapshot)


def find_board(name: str) -> BoardHandle | None:
    """Return the driver's board, or None if its driver is gone or shows nothing."""
    try:
        board: BoardHandle = ray.get_actor(name, namespace=_NAMESPACE)
    except ValueError:
        return None
    return board


def has_started(board: BoardHandle) -> bool:
    """Whether a worker of the board's run was ever scheduled; True if the board has died, which others report."""
    try:
        answer: bool = ray.get(board.has_started.remote(), timeout=_ANSWER_S)
    except ray.exceptions.RayError as error:
        logger.debug("the board does not answer: %s", error)
        return True
    return answer


def build_heartbeat(name: str, *, stuck_after_s: float | None) -> HeartbeatSender:
    """Mark this worker as started on the board of this name, and build the sender of its heartbeats."""
    context = ray.train.get_context()
    board = find_board(name)
    if board is not None:
        board.mark_started.remote()
    return HeartbeatSender(
        board, rank=context.get_world_rank(), num_ranks=context.get_world_size(), stuck_after_s=stuck_after_s
    )


@contextmanager
def shown_progress(name: str, *, is_shown: bool = True) -> Iterator[BoardHandle]:
    """Show what the workers post to a board until the block is left; needs a running Ray.

    Args:
        name: of the board.
        is_shown: whether the progress appears on stderr.

    Yields:
        The board.
    """
    actor = ray.remote(num_cpus=0)(ProgressBoard)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # not lost with others
    board: Any = actor.options(name=name, namespace=_NAMESPACE, get_if_exists=True, scheduling_strategy=here).remote()
    stopped = threading.Event()
    console = Console(stderr=True, quiet=not is_shown)
    show = _show_bar if console.is_terminal else _show_lines
    thread = threading.Thread(target=show, args=(board, console, stopped), name="progress", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        stopped.set()
        thread.join()
        ray.kill(board)


def _snapshots(board: BoardHandle, stopped: threading.Event, interval_s: float) -> Iterator[Snapshot]:
    """Yield a snapshot at every interval, and the last one when stopped."""
    is_last = False
    while not is_last:
        is_last = stopped.wait(interval_s)
        try:
            yield ray.get(board.read.remote(), timeout=interval_s + 10.0)
        except ray.exceptions.RayError as error:
            logger.debug("no progress to show: %s", error)
            return


def _show_bar(board: BoardHandle, console: Console, stopped: threading.Event) -> None:
    left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left)
    num_shown = 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)
        for snapshot in _snapshots(board, stopped, _BAR_INTERVAL_S):
            for line in snapshot.evaluations[num_shown:]:
                progress.console.print(line)
            num_shown = len(snapshot.evaluations)
            progress.update(
                task, description=snapshot.describe(), completed=snapshot.step, total=snapshot.num_steps or None
            )


def _show_lines(board: BoardHandle, console: Console, stopped: threading.Event) -> None:
    num_shown, shown = 0, ""
    for snapshot in _snapshots(board, stopped, _LINE_INTERVAL_S):
        for line in snapshot.evaluations[num_shown:]:
            console.print(line, soft_wrap=True, highlight=False)
        num_shown = len(snapshot.evaluations)
        steps = f"step {snapshot.step} of {snapshot.num_steps}" if snapshot.num_steps else ""
        left = f"{snapshot.remaining_s:.0f} s left" if snapshot.remaining_s else ""
        line = ", ".join(part for part in (steps, snapshot.describe(), left) if part)
        if line != shown:
            console.print(line, soft_wrap=True, highlight=False)
            shown = line
