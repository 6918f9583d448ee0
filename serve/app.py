"""The Serve application, as in ``serve run serve/config.yaml``."""

import math
from functools import partial

import ray
from ray import serve as ray_serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from serve.gateway import Gateway
from serve.http.problems import RETRY_AFTER_S
from serve.models.loading import ModelLoader
from serve.models.repository import ModelRepository, open_repository
from serve.settings import Autoscaling, ServeConfig
from serve.transcriber import Transcriber
from sottovoce.errors import ConfigError
from sottovoce.model.variants import FORMATS, RunDevice, ServedVariant

# A gateway reserves nothing, so that a dead one comes back at once: when it reserved a tenth, a transcriber that waited
# for a CPU took it, and every request failed for minutes (2 cores, 20 clients).
_GATEWAY_CPUS = 0
_HEALTH_CHECK_PERIOD_S = 1.0  # how soon a dead replica is noticed; Ray's default is 10 s
_DRAIN_POLL_S = 0.2  # how soon an idle replica ends; Ray's default is 2 s for each deployment
_TRANSCRIBER_DRAIN_S = 20.0  # Serve's default: a window that takes longer is sent again, and a hung engine ends soon
_LOOK_BACK_S = 30.0  # load is averaged over this time; Serve's default
_BATCHES_IN_REPLICA = 4  # two are being decoded at most, the others wait in the queue that fills the next batches


def build_app(args: ServeConfig) -> Application:
    """Build the gateway and the transcribers behind it; Serve validates ``args`` against its class.

    Args:
        args: settings, from ``serve/config.yaml`` or a launcher.

    Raises:
        ConfigError: the default model cannot be served, or not on the device; no replica would start.
    """
    repository = open_repository(args)
    plan = repository.default_plan()
    config = settle_device(args, plan.variant, num_gpus=_count_gpus())
    return _build_gateway(config, repository, _build_transcriber(config, repository))


def settle_device(config: ServeConfig, variant: ServedVariant, *, num_gpus: float) -> ServeConfig:
    """Return settings whose device is cpu or cuda.

    Args:
        config: the service's settings.
        variant: of the default model.
        num_gpus: in the cluster.

    Raises:
        ConfigError: device cuda, and the variant runs on CPUs alone.
    """
    runs_on_gpu = "cuda" in FORMATS[variant].devices
    if config.device == "auto":
        return config.model_copy(update={"device": "cuda" if runs_on_gpu and num_gpus >= config.num_gpus else "cpu"})
    if config.device == "cuda" and not runs_on_gpu:
        others = ", ".join(name for name, row in FORMATS.items() if "cuda" in row.devices)
        raise ConfigError(f"variant {variant} does not run on cuda; use --device cpu, or one of the variants {others}")
    return config


def _count_gpus() -> float:
    """Return the GPUs of the cluster; 0 outside one, where a configuration is only checked."""
    if not ray.is_initialized():
        return 0.0
    return float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]


def _build_transcriber(config: ServeConfig, repository: ModelRepository) -> Application:
    limits, batching, on_gpu = config.limits, config.batching, config.device == "cuda"
    max_bytes: dict[RunDevice, int] = {"cpu": config.max_model_bytes}
    if on_gpu:
        max_bytes["cuda"] = config.max_gpu_bytes
    deployment: Deployment = ray_serve.deployment(
        name="Transcriber",
        ray_actor_options={"num_cpus": config.num_threads} | ({"num_gpus": config.num_gpus} if on_gpu else {}),
        autoscaling_config=_autoscaling(config.transcriber_scaling),
        graceful_shutdown_timeout_s=_TRANSCRIBER_DRAIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_POLL_S,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        max_ongoing_requests=_BATCHES_IN_REPLICA * batching.max_batch_size,
        # Above the gateway's own limit, which admits fewer requests than would fill this queue.
        max_queued_requests=limits.max_concurrent_requests * limits.max_windows_in_flight,
    )(Transcriber)
    return deployment.bind(
        repository,
        make_loader=partial(ModelLoader, num_threads=config.num_threads, device="cuda" if on_gpu else "cpu"),
        max_bytes=max_bytes,
        max_batch_size=batching.max_batch_size,
        batch_wait_timeout_s=batching.batch_wait_timeout_s,
        max_step_s=limits.deadline_s,
    )


def _build_gateway(config: ServeConfig, repository: ModelRepository, transcriber: Application) -> Application:
    limits = config.limits
    deployment: Deployment = ray_serve.deployment(
        name="Gateway",
        ray_actor_options={"num_cpus": _GATEWAY_CPUS},
        autoscaling_config=_autoscaling(config.gateway_scaling),
        graceful_shutdown_timeout_s=config.drain_timeout_s,
        graceful_shutdown_wait_loop_s=_DRAIN_POLL_S,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        # Above the gateway's own limit, so that the gateway answers 503 itself, in OpenAI's shape.
        max_ongoing_requests=math.ceil(1.25 * limits.max_uploads),
        max_queued_requests=limits.max_uploads,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
    )(ray_serve.ingress()(Gateway))
    return deployment.bind(
        transcriber,
        source=repository,
        limits=limits,
        api_keys_env=config.api_keys_env,
        long_form=config.long_form,
        wakes_transcribers=config.transcriber_scaling.min_replicas == 0,
        allow_origins=config.allow_origins,
    )


def _autoscaling(scaling: Autoscaling) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_ongoing_requests=scaling.target_ongoing_requests,
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        look_back_period_s=_LOOK_BACK_S,
    )
