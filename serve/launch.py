"""Start and stop the service from Python, on this machine or inside a running Ray."""

import ipaddress
import logging
import os
import signal
import socket
import threading
from pathlib import Path

import ray
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions

from serve.app import build_app
from serve.models.repository import open_repository
from serve.settings import ServeConfig, resolve_path
from sottovoce.assets import MICRO_FOLDER
from sottovoce.cluster import explained_token
from sottovoce.errors import ConfigError

APP_NAME = "sottovoce"
_TIMEOUT_MARGIN_S = 30.0  # Serve's own timeout lies above the gateway's, which answers 504 in OpenAI's shape

_MIN_CPUS = 2  # logical: one for a transcriber, a tenth for the gateway, so that one core serves as well

_log = logging.getLogger(__name__)


def check_port(host: str, port: int) -> None:
    """Check that the service can listen, before anything else is done.

    Raises:
        ConfigError: another program listens there, or this machine has no such interface.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"the service cannot listen on {host}:{port} ({reason}); stop what listens there, or name another --port"
        ) from error


def describe_default(config: ServeConfig) -> str:
    """Describe the default model in one line: name, variant and folder.

    Raises:
        ConfigError: there is none, or the export gate refused it.
    """
    entry = open_repository(config).read().get(config.model_id)
    plan = None if entry is None else entry.plan(None)
    wanted = None if config.model is None else resolve_path(config.model)
    if entry is not None and plan is None:
        raise ConfigError(f"{config.model_id} cannot be served: {'; '.join(entry.refused.values())}")
    if plan is None or wanted not in (None, plan.folder, str(Path(plan.folder).parent)):
        where = config.model or config.models_folder
        raise ConfigError(f"there is no {config.variant} model to serve in {where}; name another --model or --variant")
    if plan.folder == str(MICRO_FOLDER):
        return f"{config.model_id} is the embedded model micro, variant {plan.variant}, in {shown_path(plan.folder)}"
    return f"{config.model_id} is variant {plan.variant} in {shown_path(plan.folder)}"


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
        with explained_token():
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


def start_server(config: ServeConfig, *, host: str, port: int) -> None:
    """Start Serve and its HTTP proxy without a model, unless they run already.

    Raises:
        ConfigError: no Ray runs in this process.
    """
    if not ray.is_initialized():
        raise ConfigError("no Ray runs in this process; call ray.init() or start_ray() first")
    ray_serve.start(
        http_options=HTTPOptions(host=host, port=port, request_timeout_s=config.limits.deadline_s + _TIMEOUT_MARGIN_S)
    )


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
    start_server(config, host=host, port=port)
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


def shown_path(path: str) -> str:
    """Return a path relative to the working folder if it lies below it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
