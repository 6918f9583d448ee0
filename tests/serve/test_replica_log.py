import logging
from collections.abc import Iterator

import pytest

from serve import replica_log
from serve.replica_log import join_replica_log

NAMES = ("serve", "sottovoce", "ray.serve")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """A replica's process, whose log Serve has set up."""
    monkeypatch.setattr(replica_log.ray_serve, "get_replica_context", lambda: None)
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


def test_a_process_that_is_no_replica_keeps_its_log(replica: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = logging.getLogger("serve").handlers[:]
    join_replica_log()
    assert logging.getLogger("serve").handlers == before
