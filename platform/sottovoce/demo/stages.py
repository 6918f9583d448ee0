"""The wall time of each stage of the quickstart."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


class Stages:
    """Seconds of each stage, in the order they ended.

    Concurrent stages overlap, so their sum may exceed the total.
    """

    def __init__(self) -> None:
        """Start at the start of the process; the imports since then are the first stage."""
        self._started = psutil.Process().create_time()
        self.seconds: dict[str, float] = {"imports": self.total_s}

    @property
    def total_s(self) -> float:
        """Seconds since the process started."""
        return float(time.time() - self._started)

    def run(self, name: str, stage: Callable[[], ResultT]) -> ResultT:
        """Run one stage and record its seconds."""
        started = time.perf_counter()
        result = stage()
        self.seconds[name] = time.perf_counter() - started
        logger.info("%s took %.1f s", name, self.seconds[name])
        return result
