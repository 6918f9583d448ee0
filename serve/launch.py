"""Start and stop the service from Python, on this machine or inside a running Ray."""

import ipaddress
import logging
import os
import signal
import threading

import ray
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions

from serve.app import build_app
from serve.settings import ServeConfig
from sottovoce.errors import ConfigError

APP_NAME = "sottovoce"
_TIMEOUT_MARGIN_S = 30.0  # Serve's own timeout lies above the gateway's, which answers 504 in OpenAI's shape

_MIN_CPUS = 2  # logical: one for a transcriber, a tenth for the gateway, so that one core serves as well

_log = logging.getLogger(__name__)


def start_ray(*, host: str) -> None:
    """Start Ray on this machine with token authentication, unless this process is already connected to one.

    Each Serve replica opens a port that unpickles what it receives, so only this machine may reach it unless a token
    protects it. A local Ray turns the token on and creates one, unless RAY_AUTH_MODE says otherwise.

    Raises:
        ConfigError: token authentication is off and the service would listen beyond this machine.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()  # Ray itself sets it when it turns the token on
    will_turn_on = not mode and not ray.is_initialized()
    if mode != "token" and not will_turn_on and not is_loopback(host):
        raise ConfigError(
            f"without RAY_AUTH_MODE=token the service must not listen on {host}; set it, or use 127.0.0.1"
        )
    if not ray.is_initialized():
        num_cpus = max(_MIN_CPUS, os.cpu_count() or 0)
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            logging_level=logging.WARNING,
            log_to_driver=False,  # errors reach the driver as exceptions; the rest is in the dashboard
        )
    for library in ("ray.data", "ray.serve"):
        logging.getLogger(library).setLevel(logging.WARNING)


def start_service(config: ServeConfig, *, host: str = "127.0.0.1", port: int = 8000) -> str:
    """Start the service inside the running Ray and wait until it answers.

    Args:
        config: what to serve.
        host: interface to listen on.
        port: port to listen on.

    Returns:
        The base URL for OpenAI's clients, as in ``http://127.0.0.1:8000/v1``.

    Raises:
        ConfigError: no Ray runs in this process.
        RuntimeError: Serve could not start a replica; its log says why.
    """
    if not ray.is_initialized():
        raise ConfigError("no Ray runs in this process; call ray.init() or start_ray() first")
    ray_serve.start(
        http_options=HTTPOptions(host=host, port=port, request_timeout_s=config.limits.deadline_s + _TIMEOUT_MARGIN_S)
    )
    ray_serve.run(build_app(config), name=APP_NAME, route_prefix="/")
    url = base_url(host, port)
    _log.info("serving %s at %s", config.model_id, url)
    return url


def stop_service() -> None:
    """Stop the service and Serve after the requests in flight are answered. Ray keeps running."""
    ray_serve.shutdown()  # type: ignore[no-untyped-call]


def wait_for_signal() -> None:
    """Block until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def base_url(host: str, port: int) -> str:
    """Return the base URL of a service, with an IPv6 address in brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def curl_line(url: str, model_id: str) -> str:
    """Return a curl command that transcribes one file."""
    return f"curl {url}/audio/transcriptions -F file=@speech.wav -F model={model_id}"


def is_loopback(host: str) -> bool:
    """Return whether an interface is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
