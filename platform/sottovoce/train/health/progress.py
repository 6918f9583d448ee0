"""Show a run's progress where its driver runs: a bar on a terminal, a line every few seconds in a log.

Bars of the workers themselves would reach the driver line by line and with prefixes, so the first rank posts numbers
to a small actor and the driver draws them.
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

from sottovoce.train.health.heartbeat import Heart, PulseBoard, PulseBook

logger = logging.getLogger(__name__)

_NAMESPACE = "sottovoce"
_BAR_INTERVAL_S = 0.5
_LINE_INTERVAL_S = 5.0


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands."""

    phase: str = "starting workers"
    step: int = 0
    num_steps: int = 0
    loss: float | None = None
    """Mean of the last steps."""
    steps_per_s: float = 0.0
    """Of the last steps, as what follows."""
    audio_s_per_s: float = 0.0
    """Seconds of speech trained on in a second, all workers together."""
    data_wait: float = 0.0
    """Share of the last steps' time in which the worker that waited most had no batch to go on with."""
    skipped_steps: int = 0
    """Steps that changed nothing, because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """See ``SkippedSteps``."""
    evaluations: tuple[str, ...] = ()
    """One line for each evaluation so far."""

    @property
    def remaining_s(self) -> float:
        """Seconds of training left at the present pace; evaluations come on top."""
        return (self.num_steps - self.step) / self.steps_per_s if self.steps_per_s else 0.0

    def describe(self) -> str:
        """Give the numbers in a few words."""
        if not self.steps_per_s or self.loss is None:
            return self.phase
        pace = f"{self.steps_per_s:.2f} steps/s, {self.audio_s_per_s:.0f} audio-s/s, {self.data_wait:.1%} data wait"
        return f"{self.phase}: loss {self.loss:.3f}, {pace}{self._describe_skipped()}"

    def _describe_skipped(self) -> str:
        if not self.skipped_steps:
            return ""
        in_a_row = f" ({self.skipped_in_a_row} in a row)" if self.skipped_in_a_row else ""
        return f", {self.skipped_steps} steps skipped{in_a_row}"


class BoardHandle(PulseBoard, Protocol):
    """A Ray actor's handle of a ``ProgressBoard``; its methods carry ``remote``."""

    post: Any
    read: Any


class ProgressBoard(PulseBook):
    """The actor between the workers and the driver: the first rank's progress, and all ranks' heartbeats."""

    def __init__(self) -> None:
        super().__init__()
        self._snapshot = Snapshot()

    def post(self, snapshot: Snapshot) -> None:
        """Replace what the driver will see."""
        self._snapshot = snapshot

    def read(self) -> Snapshot:
        """Give the latest."""
        return self._snapshot


class ProgressPost:
    """The first rank's end; posting never waits, and does nothing on other ranks."""

    def __init__(self, board: BoardHandle | None) -> None:
        self._board = board
        self._snapshot = Snapshot()

    def update(self, **changes: object) -> None:
        """Post the fields of a ``Snapshot`` that changed."""
        self._snapshot = replace(self._snapshot, **changes)  # type: ignore[arg-type]  # a wrong field fails at once
        if self._board is not None:
            self._board.post.remote(self._snapshot)


def find_board(name: str) -> BoardHandle | None:
    """Give the driver's board, or None where its driver is gone or shows nothing."""
    try:
        board: BoardHandle = ray.get_actor(name, namespace=_NAMESPACE)
    except ValueError:
        return None
    return board


def find_heart(name: str, *, stuck_after_s: float | None) -> Heart:
    """Give the heart of this training worker, which beats for the board of that name."""
    context = ray.train.get_context()
    board = find_board(name)
    return Heart(board, rank=context.get_world_rank(), num_ranks=context.get_world_size(), stuck_after_s=stuck_after_s)


@contextmanager
def shown_progress(name: str, *, is_shown: bool = True) -> Iterator[BoardHandle]:
    """Show what workers post under a name, until the block is left; needs a running Ray.

    Args:
        name: of the board.
        is_shown: False keeps it off the terminal.

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
    """Give a snapshot at every interval, and the last when stopped."""
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
