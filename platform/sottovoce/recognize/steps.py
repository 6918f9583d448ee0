"""Decode in steps: several decodings take turns on one engine, so that none waits for the end of another."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from sottovoce.schema import WindowResult

_Ended = TypeVar("_Ended")


class Step(NamedTuple):
    """What a step of a decoding brought."""

    ended: dict[int, WindowResult]
    """The results of the windows that ended with it, by their index."""
    num_tokens: int
    """Tokens generated so far for each window that goes on, those of refused temperatures included."""


@dataclass(frozen=True)
class BatchDecoding:
    """The decoding of windows that share an audio context: first they are encoded, then their texts are generated."""

    indices: tuple[int, ...]
    """Of its windows."""
    steps: Iterator[Step]
    """One at a time. Nothing is computed between two of them."""


def finish(decodings: Iterable[BatchDecoding], *, num_windows: int) -> list[WindowResult]:
    """Take all steps of one decoding after the other; return one result for each window, in order."""
    return in_order((step.ended for decoding in decodings for step in decoding.steps), length=num_windows)


def in_order(endings: Iterable[Mapping[int, _Ended]], *, length: int) -> list[_Ended]:
    """Collect what ended step by step, by its index."""
    collected: dict[int, _Ended] = {}
    for ended in endings:
        collected |= ended
    return [collected[index] for index in range(length)]


def steps_within(enter: Callable[[], AbstractContextManager[None]], decoding: BatchDecoding) -> BatchDecoding:
    """Take each step within a context that is left between two steps, since other decodings then have their turn.

    Args:
        enter: returns the context, such as inference mode.
        decoding: its steps are taken within.
    """

    def take() -> Iterator[Step]:
        while True:
            with enter():
                step = next(decoding.steps, None)
            if step is None:
                return
            yield step

    return replace(decoding, steps=take())
