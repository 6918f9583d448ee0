"""Make batches ready in a thread while the model computes."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.1  # how soon a stopped producer notices


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None


@contextmanager
def prefetched(values: Iterable[T], *, depth: int) -> Iterator[Iterator[T]]:
    """Draw values in a thread of their own, from now on; leaving the block stops it and closes the source.

    Args:
        values: drawn in order; an error it raises is raised by the iterator.
        depth: values that wait at most.
    """
    ready: queue.Queue[_Item[T] | _End] = queue.Queue(maxsize=max(1, depth))
    stopped = threading.Event()
    producer = threading.Thread(target=_produce, args=(values, ready, stopped), name="prefetch", daemon=True)
    producer.start()
    try:
        yield _drain(ready)
    finally:
        stopped.set()
        producer.join()


def _produce(values: Iterable[T], ready: "queue.Queue[_Item[T] | _End]", stopped: threading.Event) -> None:
    error: BaseException | None = None
    iterator = iter(values)
    try:
        while not stopped.is_set():
            _put(_Item(next(iterator)), ready, stopped)
    except StopIteration:
        pass
    except Exception as caught:  # noqa: BLE001 - handed to the consumer, which raises it
        error = caught
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
    _put(_End(error), ready, stopped)


def _put(item: _Item[T] | _End, ready: "queue.Queue[_Item[T] | _End]", stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            ready.put(item, timeout=_POLL_S)
        except queue.Full:
            continue
        return


def _drain(ready: "queue.Queue[_Item[T] | _End]") -> Iterator[T]:
    while True:
        item = ready.get()
        if isinstance(item, _Item):
            yield item.value
        elif item.error is not None:
            raise item.error
        else:
            return
