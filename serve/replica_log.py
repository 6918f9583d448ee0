"""Write our log lines into Serve's replica logs, which the dashboard shows."""

import logging

from ray import serve as ray_serve
from ray.serve.exceptions import RayServeException

_OURS = ("serve", "sottovoce")
_SERVES = "ray.serve"  # Serve configures this logger alone; other loggers lose lines below WARNING


def join_replica_log() -> None:
    """Attach Serve's log handlers to our loggers, from INFO on. Does nothing outside a replica."""
    try:
        ray_serve.get_replica_context()
    except RayServeException:  # not a replica: the process's own logging applies
        return
    for name in _OURS:
        ours = logging.getLogger(name)
        for handler in logging.getLogger(_SERVES).handlers:
            if handler not in ours.handlers:
                ours.setLevel(logging.INFO)
                ours.addHandler(handler)
