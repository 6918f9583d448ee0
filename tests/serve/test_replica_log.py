import logging
from collections.abc import Iterator

import pytest

from serve.replica_log import join_replica_log

NAMES = ("serve", "sottovoce", "ray.serve")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def replica() -> Iterator[Kept]:
    """A process whose Serve has set up its log."""
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in NAMES}
    kept = Kept()
    logging.getLogger("ray.serve").handlers[:] = [kept]
    yield kept
    for name, (level, handlers) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers


def test_what_a_replica_tells_stands_in_serves_log_of_it_once(replica: Kept) -> None:
    join_replica_log()
    join_replica_log()
    logging.getLogger("serve.models.loaded").info("%s is dropped", "tiny")
    logging.getLogger("sottovoce.recognize").info("loaded")
    logging.getLogger("sottovoce.recognize").debug("a detail")
    assert replica.messages == ["tiny is dropped", "loaded"]


def test_without_serve_nothing_is_changed() -> None:
    level, handlers = logging.getLogger("serve").level, logging.getLogger("serve").handlers[:]
    serves = logging.getLogger("ray.serve").handlers[:]
    logging.getLogger("ray.serve").handlers.clear()
    join_replica_log()
    logging.getLogger("ray.serve").handlers[:] = serves
    assert (logging.getLogger("serve").level, logging.getLogger("serve").handlers) == (level, handlers)
