"""Which decoding takes the next step on a replica's engine."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from serve.observe.engine_metrics import record_window
from serve.window import PendingWindow
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.steps import BatchDecoding, Step

_FRESH_TOKENS = 48
"""Most sentences end before. A decoding is long once its windows have more tokens, refused texts included."""
_LONG_SHARE = 1 / 3
"""Of the time of fresh decodings, long ones get so much beside them: a quarter of all."""
_MAX_OWED_S = 1.0


@dataclass(eq=False)
class RunningBatch:
    """Windows of one model that are decoded together, and how far they are."""

    key: str
    """Of the model."""
    recognizer: Recognizer
    decoding: BatchDecoding
    windows: Sequence[PendingWindow]
    """In the order of ``decoding.indices``."""
    num_tokens: int = 0
    """Generated so far for each window that goes on."""
    total_tokens: int = 0
    """Of the windows that ended."""
    seconds: float = 0.0
    """Of its steps so far."""

    @property
    def is_long(self) -> bool:
        """Whether it has generated more than most sentences need."""
        return self.num_tokens > _FRESH_TOKENS

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for any of its windows."""
        return all(window.is_settled for window in self.windows)

    @property
    def has_begun(self) -> bool:
        """Whether its windows are encoded."""
        return self.seconds > 0.0

    def take(self, step: Step, *, seconds: float) -> None:
        """Note steps that it took, of which ``step`` is the last, and answer the windows that ended."""
        self.num_tokens = step.num_tokens
        self.seconds += seconds
        for index, result in step.ended.items():
            window = self.windows[self.decoding.indices.index(index)]
            window.settle(result)
            record_window(self.key, window.window.options, result)
            self.total_tokens += len(result.token_ids)


class Turns:
    """The decodings of a replica, of which one takes a step at a time.

    A fresh decoding goes on until its windows have ended; the next one is encoded after it. So the order of fresh
    windows is that of a queue. A long one, whose text repeats itself or is generated again at other temperatures, would
    hold up all behind it. It therefore steps aside: it takes single steps between those of fresh decodings, a quarter
    of the time, and all of it when there is no other.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._running: deque[RunningBatch] = deque()
        self._owed_s = 0.0
        self._last: RunningBatch | None = None

    def __len__(self) -> int:
        """Return the number of decodings."""
        return len(self._running)

    @property
    def num_windows(self) -> int:
        """Windows that are being decoded."""
        return sum(not window.is_settled for batch in self._running for window in batch.windows)

    @property
    def has_fresh(self) -> bool:
        """Whether a decoding is not long yet."""
        return any(not batch.is_long for batch in self._running)

    def add(self, batch: RunningBatch) -> None:
        """Let a decoding take its turns, behind the others."""
        self._running.append(batch)

    def remove(self, batch: RunningBatch) -> None:
        """Take out a decoding that is over or has failed. Its memory is freed."""
        self._running.remove(batch)
        if self._last is batch:
            self._last = None

    def choose(self) -> RunningBatch:
        """Return the decoding that takes the next step; there must be one."""
        fresh = [batch for batch in self._running if not batch.is_long]
        chosen = max(fresh, key=lambda batch: batch.has_begun, default=None)  # the first of those that have begun
        if chosen is None or self._is_owed(before=chosen):
            chosen = next(batch for batch in self._running if batch.is_long)
            self._running.remove(chosen)
            self._running.append(chosen)
        return chosen

    def take(self, batch: RunningBatch, step: Step, *, seconds: float) -> None:
        """Note steps that a decoding took, of which ``step`` is the last."""
        if batch.is_long:
            self._owed_s -= seconds
        elif any(other.is_long for other in self._running):
            self._owed_s = min(self._owed_s + _LONG_SHARE * seconds, _MAX_OWED_S)
        else:
            self._owed_s = 0.0
        self._last = batch
        batch.take(step, seconds=seconds)

    def _is_owed(self, *, before: RunningBatch) -> bool:
        """Whether a long decoding takes a step first. Of two steps in a row, none keeps a text waiting."""
        if self._owed_s <= 0.0 or not any(batch.is_long for batch in self._running):
            return False
        return not (before.has_begun and self._last is not None and self._last.is_long)
