"""What Ray's processes show on this node's Prometheus endpoint."""

import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import ray

METRICS_WAIT_S = 90.0  # Ray's processes report every 10 s; on a busy machine later

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Metric:
    """One line of the endpoint."""

    name: str
    tags: dict[str, str]
    value: float


def read_metrics() -> list[Metric]:
    """Read all that is shown now."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=30.0) as answer:
        text = answer.read().decode()
    return [
        Metric(name, dict(re.findall(r'(\w+)="([^"]*)"', tags)), float(value))
        for name, tags, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    ]


def wait_for(look: Callable[[], _Found], is_enough: Callable[[_Found], bool]) -> _Found:
    """Look until there is enough; fails with what was seen last."""
    deadline = time.monotonic() + METRICS_WAIT_S
    while not is_enough(found := look()):
        assert time.monotonic() < deadline, f"only {found}"
        time.sleep(1.0)
    return found
