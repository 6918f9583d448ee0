"""Watch the service from the process that started it, which must end with it: then a supervisor can restart both.

Ray restarts the controller, and the controller restarts proxies and replicas. Nobody restarts a local Ray, or a Serve
that was shut down from elsewhere.
"""

import http.client
import threading
import time
from collections.abc import Callable, Sequence

import psutil

_POLL_S = 0.5
_PROBE_TIMEOUT_S = 5.0
_LOST_AFTER_S = 30.0  # three times what the slowest recovery may take
_RAYS_OWN = ("raylet", "gcs_server")


def local_ray_processes() -> list[psutil.Process]:
    """Return the processes of the Ray that this process started, without its workers; empty if it joined one."""
    return [process for process in psutil.Process().children() if process.name() in _RAYS_OWN]


def wait_for_loss(
    stopped: threading.Event,
    serves: Callable[[], bool],
    *,
    processes: Sequence[psutil.Process],
    lost_after_s: float = _LOST_AFTER_S,
) -> str | None:
    """Block until a stop is asked for or the service is lost.

    Args:
        stopped: set when the service shall stop.
        serves: whether the service answers now, as ``proxy_serves`` finds out.
        processes: of the local Ray; see ``local_ray_processes``.
        lost_after_s: seconds without an answer after which the service is lost.

    Returns:
        What was lost, or None when the stop was asked for.
    """
    names = {process.pid: process.name() for process in processes}
    answered = time.monotonic()
    while not stopped.wait(_POLL_S):
        for process in processes:
            if not is_alive(process):
                return f"Ray's {names[process.pid]} has ended"
        if serves():
            answered = time.monotonic()
        elif time.monotonic() - answered > lost_after_s:
            return f"Serve has not answered for {lost_after_s:g} s"
    return None


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def proxy_serves(host: str, port: int, app_name: str) -> bool:
    """Return whether Serve's proxy answers on this port and has a route to an application."""
    connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/-/routes")
        return app_name.encode() in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
