"""Where the seconds of a walk go."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


class Stages:
    """Seconds of each stage, in the order they ended.

    Stages overlap where threads run them side by side; their sum may then exceed the whole.
    """

    def __init__(self) -> None:
        """Begin when the process began: what was imported since is the first stage."""
        self._started = psutil.Process().create_time()
        self.seconds: dict[str, float] = {"imports": self.total_s}

    @property
    def total_s(self) -> float:
        """Seconds since the process started."""
        return time.time() - self._started

    def run(self, name: str, stage: Callable[[], ResultT]) -> ResultT:
        """Run one stage and note its seconds."""
        started = time.perf_counter()
        result = stage()
        self.seconds[name] = time.perf_counter() - started
        logger.info("%s took %.1f s", name, self.seconds[name])
        return result
