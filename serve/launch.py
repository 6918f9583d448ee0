"""Start and stop the service from Python, on this machine or inside a running Ray."""

import ipaddress
import logging
import math
import os
import socket
from pathlib import Path

import ray
from ray import serve as ray_serve
from ray.serve.config import ControllerOptions, HTTPOptions

from serve.app import build_app, settle_device
from serve.lifecycle.crowd import MAX_WORKING_VARIABLE
from serve.lifecycle.resending import MIDDLEWARE_PATH
from serve.lifecycle.starting import explain_failure
from serve.models.file_digests import describe_files, digest_contents
from serve.models.repository import open_repository
from serve.settings import Autoscaling, ServeConfig
from sottovoce.assets import MICRO_FOLDER
from sottovoce.cluster import explained_token
from sottovoce.errors import ConfigError
from sottovoce.model.source import resolve_folder
from sottovoce.model.variants import TORCH

APP_NAME = "sottovoce"
_TIMEOUT_MARGIN_S = 30.0  # Serve's own timeout lies above the gateway's, which answers 504 in OpenAI's shape

_MIN_CPUS = 2  # logical: a training worker and what else a job starts fit on one core as well
_REFUSED_BY_GATEWAY = 8  # so many at a time are refused by a gateway, with its own reason; the proxy refuses others
# Of Serve's controller and the proxies that it starts. By default Ray notices a dead proxy after three checks, one
# every 10 s, and kills one that is not ready within 15 s, which a busy machine may not manage.
_SERVE_ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": MIDDLEWARE_PATH,
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.2",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20",
}

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
    """Describe the default model in one line: name, variant, folder, and the SHA-256 of its weights.

    Raises:
        ConfigError: there is none, or what the settings name cannot be served.
        CheckpointError: a Hub id that the Hub does not return.
    """
    plan = open_repository(config).default_plan()
    folder = resolve_folder(plan.folder) if plan.variant == TORCH else Path(plan.folder)
    kind = "the embedded model micro, variant" if folder == MICRO_FOLDER else "variant"
    files = describe_files(digest_contents(folder, plan.variant))
    return f"{config.model_id} is {kind} {plan.variant} in {shown_path(str(folder))}: {files}"


def check_access(host: str, api_keys_env: str | None, *, insecure_no_auth: bool) -> None:
    """Check that a service which others can reach asks for a key.

    Raises:
        ConfigError: it would listen beyond this machine and answer everyone.
    """
    if is_loopback(host) or api_keys_env is not None or insecure_no_auth:
        return
    raise ConfigError(
        f"on {host} everyone who reaches this machine could use the service; name the environment variable that holds "
        "the accepted keys with --api-keys-env, or allow it with --insecure-no-auth"
    )


def local_cpus() -> int:
    """Return the logical CPUs of a Ray that ``start_ray`` starts."""
    return max(_MIN_CPUS, os.cpu_count() or 0)


def fit_to_cpus(config: ServeConfig, num_cpus: int) -> ServeConfig:
    """Return settings with no more replicas than have CPUs.

    A transcriber that waits for a CPU for ever serves nobody. A gateway reserves none, but one that is added to a busy
    machine takes seconds of both cores for its start, and then does not make it faster.

    Args:
        config: the service's settings.
        num_cpus: CPUs of the machine or the cluster.

    Raises:
        ConfigError: the least that must run does not fit.
    """
    scaling = config.transcriber_scaling
    most, least = num_cpus // config.num_threads, max(1, scaling.min_replicas)
    if least > most:
        raise ConfigError(
            f"{least} transcriber(s) with num_threads {config.num_threads} need {least * config.num_threads} CPUs, and "
            f"there are {num_cpus}; lower --num-threads or --transcriber-scaling.min-replicas"
        )
    gateways = config.gateway_scaling
    return config.model_copy(
        update={
            "transcriber_scaling": scaling.model_copy(update={"max_replicas": min(most, scaling.max_replicas)}),
            "gateway_scaling": gateways.model_copy(update={"max_replicas": _most_gateways(gateways, num_cpus)}),
        }
    )


def _most_gateways(scaling: Autoscaling, num_cpus: int) -> int:
    return max(scaling.min_replicas, min(num_cpus, scaling.max_replicas))


def fit_to_gpus(config: ServeConfig, num_gpus: float) -> ServeConfig:
    """Return settings with no more transcribers on cuda than have GPUs; others are returned as they are.

    Args:
        config: the service's settings; its device is settled.
        num_gpus: GPUs of the machine or the cluster.

    Raises:
        ConfigError: the least that must run does not fit.
    """
    if config.device != "cuda":
        return config
    scaling = config.transcriber_scaling
    if config.num_gpus > 1.0:
        most = int(num_gpus // config.num_gpus)
    else:  # a fraction comes from one GPU
        most = math.floor(num_gpus) * math.floor(1.0 / config.num_gpus + 1e-9)
    least = max(1, scaling.min_replicas)
    if least > most:
        raise ConfigError(
            f"{least} transcriber(s) with num_gpus {config.num_gpus:g} need {least * config.num_gpus:g} GPUs, and Ray "
            f"has {num_gpus:g}; use --device cpu, or lower --num-gpus or --transcriber-scaling.min-replicas"
        )
    fitting = scaling.model_copy(update={"max_replicas": min(most, scaling.max_replicas)})
    return config.model_copy(update={"transcriber_scaling": fitting})


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
        with explained_token():
            ray.init(
                address="local",
                num_cpus=local_cpus(),
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
    num_gateways = _most_gateways(config.gateway_scaling, int(_cluster_resource("CPU")))
    max_working = num_gateways * (config.limits.max_concurrent_requests + _REFUSED_BY_GATEWAY)
    environment = _SERVE_ENVIRONMENT | {MAX_WORKING_VARIABLE: str(max_working)}
    ray_serve.start(
        http_options=HTTPOptions(
            host=host, port=port, request_timeout_s=config.limits.longest_deadline_s + _TIMEOUT_MARGIN_S
        ),
        controller_options=ControllerOptions(runtime_env={"env_vars": environment}),
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
        ConfigError: no Ray runs in this process, its CPUs or GPUs do not suffice, the default model cannot be served,
            or Serve could not start a replica.
    """
    described = describe_default(config)
    start_server(config, host=host, port=port)
    num_gpus = _cluster_resource("GPU")
    settled = settle_device(config, open_repository(config).default_plan().variant, num_gpus=num_gpus)
    fitting = fit_to_gpus(fit_to_cpus(settled, int(_cluster_resource("CPU"))), num_gpus)
    try:
        ray_serve.run(build_app(fitting), name=APP_NAME, route_prefix="/")
    except RuntimeError as error:
        reason = explain_failure(APP_NAME)
        ray_serve.delete(APP_NAME)
        raise ConfigError(f"the service could not start: {reason}") from error
    url = base_url(host, port)
    _log.info("serving at %s: %s", url, described)
    return url


def _cluster_resource(name: str) -> float:
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return cluster.get(name, 0.0)


def stop_service() -> None:
    """Stop the service and Serve after the requests in flight are answered. Ray keeps running."""
    ray_serve.shutdown()  # type: ignore[no-untyped-call]


def base_url(host: str, port: int) -> str:
    """Return the base URL at which this machine reaches a service, with an IPv6 address in brackets."""
    reached = reachable_host(host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}/v1"


def reachable_host(host: str) -> str:
    """Return an address at which this machine reaches a service that listens on an interface, or on all of them."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def curl_line(url: str, model_id: str, *, api_keys_env: str | None = None) -> str:
    """Return a curl command that transcribes one file, with the first of the accepted keys if there are any."""
    key = "" if api_keys_env is None else f' -H "Authorization: Bearer ${{{api_keys_env}%%,*}}"'
    return f"curl {url}/audio/transcriptions{key} -F file=@speech.wav -F model={model_id}"


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
