import time
from collections.abc import Iterator

import pytest

from sottovoce.train.batches import prefetched


class Source:
    """Counts up; remembers what was drawn and whether it was closed."""

    def __init__(self, *, fails_at: int | None = None, ends_at: int = 1_000) -> None:
        self.drawn: list[int] = []
        self.is_closed = False
        self._fails_at, self._ends_at = fails_at, ends_at

    def values(self) -> Iterator[int]:
        try:
            for i in range(self._ends_at):
                if i == self._fails_at:
                    raise OSError("the disk is gone")
                self.drawn.append(i)
                yield i
        finally:
            self.is_closed = True


def test_values_come_in_order_and_end() -> None:
    with prefetched(Source(ends_at=5).values(), depth=2) as values:
        assert list(values) == [0, 1, 2, 3, 4]


def test_leaving_early_stops_the_source_and_closes_it() -> None:
    source = Source()
    with prefetched(source.values(), depth=2) as values:
        assert next(values) == 0
    assert source.is_closed
    assert len(source.drawn) <= 5


def test_an_error_of_the_source_reaches_the_consumer() -> None:
    with prefetched(Source(fails_at=2).values(), depth=2) as values:
        assert [next(values), next(values)] == [0, 1]
        with pytest.raises(OSError, match="disk is gone"):
            next(values)


def test_values_are_read_ahead_up_to_the_depth() -> None:
    source = Source()
    with prefetched(source.values(), depth=2):
        deadline = time.monotonic() + 5.0
        while len(source.drawn) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(source.drawn) == 3  # two wait, one is held
