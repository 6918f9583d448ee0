"""Who a run asks before it goes on after an evaluation: how a search ends a trial early, and hears its WER meanwhile.

The first rank posts its evaluations to a small actor and waits for the answer; the searching side reads there and
answers. So a trial that is told to stop ends as any run does, with its workers and its resources given back.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from sottovoce.checkpoints.run_state import EvaluationRow

_NAMESPACE = "sottovoce"
_INTERVAL_S = 0.1  # an evaluation takes seconds at least


@dataclass(frozen=True)
class Posted:
    """What a run has posted so far."""

    rows: tuple[EvaluationRow, ...] = ()
    is_last: bool = False
    """The run ends with the last of them."""


class Pruner:
    """The actor between a run's first rank and whoever decides on the run."""

    def __init__(self) -> None:
        self._posted = Posted()
        self._allowed_step = -1
        self._is_stopped = False

    def post(self, posted: Posted) -> None:
        """Replace what the deciding side will see."""
        self._posted = posted

    def read(self) -> Posted:
        """Give what was posted last."""
        return self._posted

    def allow(self, step: int) -> None:
        """Let the run go on after its evaluation at a step."""
        self._allowed_step = max(step, self._allowed_step)

    def stop(self) -> None:
        """Let the run end at its next evaluation, or at the one it waits at."""
        self._is_stopped = True

    def verdict(self, step: int) -> bool | None:
        """Tell whether the run goes on after its evaluation at a step; None while nobody has decided."""
        if self._is_stopped:
            return False
        return True if step <= self._allowed_step else None


class PrunerHandle(Protocol):
    """A Ray actor's handle of an ``Pruner``; its methods carry ``remote``."""

    post: Any
    read: Any
    allow: Any
    stop: Any
    verdict: Any


def start_pruner(name: str) -> PrunerHandle:
    """Start an actor under a name; it ends with the calling process."""
    actor: Any = ray.remote(num_cpus=0)(Pruner)
    # DEFAULT: inside a trial of Ray Tune it would otherwise be looked for room in the trial's own placement group
    handle: PrunerHandle = actor.options(name=name, namespace=_NAMESPACE, scheduling_strategy="DEFAULT").remote()
    return handle


class PrunerClient:
    """A worker's end; a run that nobody oversees never asks."""

    def __init__(self, name: str | None, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._has_pruner = name is not None
        self._pruner: PrunerHandle | None = None
        if name is not None and accelerator.is_main_process:
            self._pruner = ray.get_actor(name, namespace=_NAMESPACE)

    def stops(self, rows: Sequence[EvaluationRow], *, is_last: bool) -> bool:
        """Post the evaluations so far and tell whether the run ends here; all ranks hear the same.

        Args:
            rows: all of the run, at least one.
            is_last: the run ends here whatever the answer.
        """
        if not self._has_pruner:
            return is_last
        verdict = [self._ask(Posted(tuple(rows), is_last))]
        broadcast_object_list(verdict)
        return verdict[0]

    def _ask(self, posted: Posted) -> bool:
        if self._pruner is None:  # another rank asks
            return False
        ray.get(self._pruner.post.remote(posted))
        if posted.is_last:
            return True
        while (goes_on := ray.get(self._pruner.verdict.remote(posted.rows[-1].step))) is None:
            time.sleep(_INTERVAL_S)
        return not goes_on
