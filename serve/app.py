"""The Serve application, as in ``serve run serve/config.yaml``."""

import math

from ray import serve as ray_serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from serve.gateway import Gateway
from serve.http.problems import RETRY_AFTER_S
from serve.models.repository import ModelRepository, open_repository
from serve.settings import Autoscaling, ServeConfig
from serve.transcriber import Transcriber

_GATEWAY_CPUS = 0.1  # audio decoding comes in bursts; a gateway must fit beside a transcriber on two cores
_BATCHES_IN_REPLICA = 4  # one runs, the others wait in the queue that fills the next batches


def build_app(args: ServeConfig) -> Application:
    """Build the gateway and the transcribers behind it; Serve validates ``args`` against its class.

    Args:
        args: settings, from ``serve/config.yaml`` or a launcher.
    """
    repository = open_repository(args)
    return _build_gateway(args, repository, _build_transcriber(args, repository))


def _build_transcriber(config: ServeConfig, repository: ModelRepository) -> Application:
    limits, batching = config.limits, config.batching
    deployment: Deployment = ray_serve.deployment(
        name="Transcriber",
        ray_actor_options={"num_cpus": config.num_threads},
        autoscaling_config=_autoscaling(config.transcriber_scaling),
        max_ongoing_requests=_BATCHES_IN_REPLICA * batching.max_batch_size,
        # Above the gateway's own limit, which admits fewer requests than would fill this queue.
        max_queued_requests=limits.max_concurrent_requests * limits.max_windows_in_flight,
    )(Transcriber)
    return deployment.bind(
        repository,
        num_threads=config.num_threads,
        max_model_bytes=config.max_model_bytes,
        max_batch_size=batching.max_batch_size,
        batch_wait_timeout_s=batching.batch_wait_timeout_s,
        max_batch_s=limits.deadline_s,
    )


def _build_gateway(config: ServeConfig, repository: ModelRepository, transcriber: Application) -> Application:
    limits = config.limits
    deployment: Deployment = ray_serve.deployment(
        name="Gateway",
        ray_actor_options={"num_cpus": _GATEWAY_CPUS},
        autoscaling_config=_autoscaling(config.gateway_scaling),
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
    )


def _autoscaling(scaling: Autoscaling) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_ongoing_requests=scaling.target_ongoing_requests,
    )
