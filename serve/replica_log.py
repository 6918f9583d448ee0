"""Our lines in the log that Serve keeps of each replica, and that the dashboard shows."""

import logging

from ray import serve as ray_serve
from ray.serve.exceptions import RayServeException

_OURS = ("serve", "sottovoce")
_SERVES = "ray.serve"  # Serve sets up this logger alone: lines of others below WARNING come to nothing


def join_replica_log() -> None:
    """Write what our loggers say in a replica, from INFO on, where Serve writes what it says itself."""
    try:
        ray_serve.get_replica_context()
    except RayServeException:  # not a replica: whose process it is decides on its log
        return
    for name in _OURS:
        ours = logging.getLogger(name)
        for handler in logging.getLogger(_SERVES).handlers:
            if handler not in ours.handlers:
                ours.setLevel(logging.INFO)
                ours.addHandler(handler)
