"""Prune a run from outside: a hyperparameter search reads a trial's evaluations and decides whether it goes on.

After each evaluation the first rank posts it to a small actor and waits for the verdict. The search reads the
evaluations there and answers. So a pruned trial ends as any run does, and releases its workers and resources.
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
    """The evaluations that a run has posted so far."""

    rows: tuple[EvaluationRow, ...] = ()
    is_last: bool = False
    """Whether the run ends with the last of them."""


class Pruner:
    """The actor between a run's first rank and the search that decides on the run."""

    def __init__(self) -> None:
        self._posted = Posted()
        self._allowed_step = -1
        self._is_stopped = False

    def post(self, posted: Posted) -> None:
        """Replace the evaluations that the search reads."""
        self._posted = posted

    def read(self) -> Posted:
        """Return what was posted last."""
        return self._posted

    def allow(self, step: int) -> None:
        """Allow the run to go on after its evaluation at a step."""
        self._allowed_step = max(step, self._allowed_step)

    def stop(self) -> None:
        """End the run at its next evaluation, or at the one where it waits."""
        self._is_stopped = True

    def verdict(self, step: int) -> bool | None:
        """Whether the run goes on after its evaluation at a step; None while this is not decided."""
        if self._is_stopped:
            return False
        return True if step <= self._allowed_step else None


class PrunerHandle(Protocol):
    """The handle of a Ray actor that is a ``Pruner``; its methods are called with ``remote``."""

    post: Any
    read: Any
    allow: Any
    stop: Any
    verdict: Any


def start_pruner(name: str) -> PrunerHandle:
    """Start a pruner under a name; it ends with the calling process."""
    actor: Any = ray.remote(num_cpus=0)(Pruner)
    # DEFAULT: inside a trial of Ray Tune it would otherwise be placed in the trial's own placement group
    handle: PrunerHandle = actor.options(name=name, namespace=_NAMESPACE, scheduling_strategy="DEFAULT").remote()
    return handle


class PrunerClient:
    """A worker's side of the pruner. A run without a pruner never asks."""

    def __init__(self, name: str | None, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._has_pruner = name is not None
        self._pruner: PrunerHandle | None = None
        if name is not None and accelerator.is_main_process:
            self._pruner = ray.get_actor(name, namespace=_NAMESPACE)

    def stops(self, rows: Sequence[EvaluationRow], *, is_last: bool) -> bool:
        """Post the evaluations so far and return whether the run ends here; the same on all ranks.

        Args:
            rows: all evaluations of the run, at least one.
            is_last: whether the run ends here in any case.
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
