"""Run the service in the foreground of one process: start, watch, drain and stop."""

import threading
from collections.abc import Callable
from functools import partial

import psutil
import ray

from serve.errors import ServiceLostError
from serve.launch import (
    APP_NAME,
    fit_to_cpus,
    local_cpus,
    reachable_host,
    start_ray,
    start_service,
    stop_service,
)
from serve.lifecycle.starting import check_default_files
from serve.lifecycle.stopping import StopSignals, drain_gateways, stop_signals
from serve.lifecycle.watching import is_alive, local_ray_processes, proxy_serves, wait_for_loss
from serve.settings import ServeConfig

_RAY_STOP_S = 3.0


def run_service(
    config: ServeConfig, *, host: str, port: int, announce: Callable[[str], None], say: Callable[[str], None]
) -> None:
    """Start the service and Ray, and block until Ctrl-C or SIGTERM. Nothing is left running, however it ends.

    Args:
        config: what to serve.
        host: interface to listen on.
        port: port to listen on.
        announce: is called with the base URL when the service is ready.
        say: is called with what the user waits for.

    Raises:
        ConfigError: the service cannot start.
        ServiceLostError: Ray or Serve ended by itself.
        KeyboardInterrupt: a second signal, or one before the service was ready.
    """
    fit_to_cpus(config, local_cpus())
    check_default_files(config)
    with stop_signals() as signals:
        try:
            start_ray(host=host)
            url = start_service(config, host=host, port=port)
            signals.become_ready()
            announce(url)
            _serve(signals, host=host, port=port, drain_timeout_s=config.drain_timeout_s, say=say)
        finally:
            signals.ignore()  # bounded from here on, and a half-stopped Ray would leave processes behind
            stop_ray()


def _serve(signals: StopSignals, *, host: str, port: int, drain_timeout_s: float, say: Callable[[str], None]) -> None:
    """Watch the service until a signal, and drain it."""
    own = local_ray_processes()
    serves = partial(proxy_serves, reachable_host(host), port, APP_NAME)
    lost = wait_for_loss(signals.received, serves, processes=own)
    if lost is not None:
        raise ServiceLostError(lost)
    num_unanswered = drain_gateways(APP_NAME, timeout_s=drain_timeout_s, say=say)
    if num_unanswered:
        say(f"{num_unanswered} requests were not answered within {drain_timeout_s:g} s and are cut off")
    if not own:  # a Ray that runs on; a local one ends with everything in it
        stop_service()


def stop_ray() -> None:
    """Leave Ray. A local one stops with everything it started; what does not end in seconds is killed."""
    started = psutil.Process().children(recursive=True) if local_ray_processes() else []
    thread = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)  # it may hang without a raylet
    thread.start()
    thread.join(_RAY_STOP_S)
    for process in filter(is_alive, started):
        process.kill()
