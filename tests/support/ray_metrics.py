"""What Ray's processes show on this node's Prometheus endpoint."""

import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from serve.observe.metrics import metrics_url

METRICS_WAIT_S = 90.0  # Ray's processes report every 10 s; on a busy machine later

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Metric:
    """One line of the endpoint."""

    name: str
    tags: dict[str, str]
    value: float


def read_endpoint() -> str:
    """Read the whole page."""
    with urllib.request.urlopen(metrics_url(), timeout=30.0) as answer:
        return answer.read().decode()


def read_metrics() -> list[Metric]:
    """Read all that is shown now."""
    return [
        Metric(name, dict(re.findall(r'(\w+)="([^"]*)"', tags)), float(value))
        for name, tags, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", read_endpoint(), re.MULTILINE)
    ]


def wait_for(look: Callable[[], _Found], is_enough: Callable[[_Found], bool]) -> _Found:
    """Look until there is enough; fails with what was seen last."""
    deadline = time.monotonic() + METRICS_WAIT_S
    while not is_enough(found := look()):
        assert time.monotonic() < deadline, f"only {found}"
        time.sleep(1.0)
    return found
