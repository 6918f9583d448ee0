"""What a run asks of the cluster: device, precision, number of workers, which of their deaths count, and timeouts."""

import logging
import math
import os
from typing import Literal

import ray
import ray.train
import torch
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig

from sottovoce import cluster
from sottovoce.errors import ConfigError, PrecisionUnavailableError
from sottovoce.model.variants import Device
from sottovoce.train.config import Precision, TrainingConfig
from sottovoce.train.health.heartbeat import longest_allowed_s

logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    # Ray asks its workers every 2 s by default: at each end, death and report the run waits for the next question.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # By default Ray gives a worker that does not answer 10 min. Answers come from a thread of their own, and a dead
    # process is noticed without them: this is for a process that is stopped, or a machine that hangs.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    # How long Ray waits for room for as many workers as it counted on, 60 s by default. Its count of nodes is up to
    # 20 s old, so right after a loss it waits for a node that is gone. After the timeout it counts again.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    # Interval of the checks for nodes about to be taken away, 5 s by default. Clouds announce it 30 s ahead.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    # off by default; without it the dashboard shows no training runs (/api/train/v2/runs/v1)
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
}
# How long a rank waits for the others in a reduction. It is longer than the heartbeat allows any of them to stand
# still, so that the heartbeat ends such a wait and names the worker. torch's own error names none.
_SHORTEST_TIMEOUT_S = 600
_HEARTBEAT_MARGIN_S = 60  # to notice, to ask whether the process lives, and to kill it
_UNWATCHED_TIMEOUT_S = 12 * 3600  # guess; a user who watches no worker expects long waits
_CPU_WORKERS = 2  # on CPUs, where there are as many CPUs: the least that shows data-parallel training


def set_up_environment() -> None:
    """Set what Ray Train reads from the driver's environment, except for what the user has set."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def join_cluster() -> None:
    """Connect this process to Ray, once, with the environment that Ray Train's processes inherit."""
    cluster.join_cluster(_ENVIRONMENT)


def settle_workers(
    config: TrainingConfig, device: Literal["cpu", "cuda"], *, num_microbatches: int | None
) -> TrainingConfig:
    """Set the number of workers to what the cluster has, if none is set; joins the cluster for that.

    The number of batches of a step stays what it was at the start of the run. So a run resumed on a smaller cluster
    continues with fewer workers, each of which computes more batches, and its weights follow from the same steps.

    Args:
        config: of the run.
        device: what the workers compute on.
        num_microbatches: batches of one step in the run's last checkpoint; None at a run's start.
    """
    if config.num_workers is not None:
        return config
    join_cluster()
    here = count_workers(ray.cluster_resources(), device)  # type: ignore[no-untyped-call]
    most = here if num_microbatches is None else max(1, num_microbatches // config.accumulation_steps)
    workers = (here, most) if here < most else most
    logger.info("%s training workers, for what the cluster has", " to ".join(map(str, dict.fromkeys((here, most)))))
    return config.model_copy(update={"num_workers": workers})


def count_workers(resources: dict[str, float], device: Literal["cpu", "cuda"]) -> int:
    """Count the workers to train with on a cluster: one for each GPU; on CPUs two, or one if there is one CPU.

    Args:
        resources: of the cluster, by Ray's names.
        device: what the workers compute on.
    """
    if device == "cuda":
        return max(1, int(resources.get("GPU", 0.0)))
    return _CPU_WORKERS if resources.get("CPU", 0.0) >= _CPU_WORKERS else 1


def ask_resources(
    config: TrainingConfig, device: Literal["cpu", "cuda"], *, cpus_per_task: float | None = None
) -> tuple[str, dict[str, float]]:
    """Compute the least a run needs to start.

    Args:
        config: how many workers, and what each reserves.
        device: what they compute on.
        cpus_per_task: CPUs of one task that decodes audio; None if nothing is decoded.

    Returns:
        Who needs it, as in ``2 workers``, and how much of each of Ray's resources.
    """
    fewest, _ = config.worker_range
    asked = {kind: fewest * each for kind, each in worker_resources(config, use_gpu=device == "cuda").items()}
    who = f"{fewest} worker{'s' if fewest > 1 else ''}"
    if cpus_per_task is None:
        return who, asked
    return f"{who} and a decoding task", asked | {"CPU": asked["CPU"] + cpus_per_task}


def check_room(config: TrainingConfig, device: Literal["cpu", "cuda"], *, cpus_per_task: float | None = None) -> None:
    """Check that a run whose device was left to the cluster can start: Ray would wait for ever and say nothing.

    Args:
        config: see ``ask_resources``, also for the other arguments.
        device: see there.
        cpus_per_task: see there.

    Raises:
        ConfigError: the cluster has no room for its workers.
    """
    who, asked = ask_resources(config, device, cpus_per_task=cpus_per_task)
    lack = cluster.describe_lack(asked, ray.cluster_resources())  # type: ignore[no-untyped-call]
    if lack:
        raise ConfigError(
            f"no room for {who} ({lack}): lower training.num_workers (one number, or fewest and most, as in 1 4) or "
            f"training.cpus_per_worker; where nodes start when they are asked for, name training.device ({device})"
        )


def worker_resources(config: TrainingConfig, *, use_gpu: bool) -> dict[str, float]:
    """Return what each worker reserves, by Ray's names."""
    return {"CPU": config.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})


def build_scaling(config: TrainingConfig, *, use_gpu: bool) -> ScalingConfig:
    """Describe the workers to Ray: a fixed number, or as many as there is room for between two bounds."""
    assert config.num_workers is not None, "build_run sets it"
    return ScalingConfig(  # type: ignore[call-arg]  # mypy sees version 1, which Ray has left
        num_workers=config.num_workers,  # type: ignore[arg-type]  # as above
        use_gpu=use_gpu,
        resources_per_worker=worker_resources(config, use_gpu=use_gpu),
        elastic_resize_monitor_interval_s=config.resize_interval_s,
    )


def build_failures(config: TrainingConfig) -> FailureConfig:
    """Describe how many deaths a run survives. Deaths of nodes whose end was announced do not count."""
    return FailureConfig(  # type: ignore[call-arg]  # mypy sees version 1, which Ray has left
        max_failures=config.max_failures,
        max_preemption_failures=-1,
    )


def build_torch(config: TrainingConfig) -> TorchConfig:
    """Describe the workers' process group, with the timeout of its reductions."""
    if config.stuck_after_s is None:
        return TorchConfig(timeout_s=_UNWATCHED_TIMEOUT_S)
    allowed_s = longest_allowed_s(config.stuck_after_s)
    return TorchConfig(timeout_s=max(_SHORTEST_TIMEOUT_S, math.ceil(allowed_s) + _HEARTBEAT_MARGIN_S))


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Resolve ``auto`` to what the workers will find: cuda if the cluster, which is joined for that, has a GPU."""
    if device != "auto":
        return device
    join_cluster()
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return "cuda" if resources.get("GPU", 0) >= 1 else "cpu"


def resolve_device_here(device: Device) -> Literal["cpu", "cuda"]:
    """Resolve ``auto`` to what this process finds, for work that it does itself."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_precision(precision: Precision, device: Literal["cpu", "cuda"]) -> Literal["fp16", "bf16", "fp32"]:
    """Resolve ``auto`` to what the device is best at.

    Raises:
        PrecisionUnavailableError: fp16 without a GPU; a CPU computes it slowly and without loss scaling.
    """
    if precision == "auto":
        return "fp16" if device == "cuda" else "fp32"
    if precision == "fp16" and device == "cpu":
        raise PrecisionUnavailableError("fp16", "a CUDA device")
    return precision


def is_node_leaving() -> bool:
    """Whether a node of this run is about to be taken away, so that a checkpoint now saves the steps so far.

    Every rank gets the answer of the first rank and waits for the others: all must call it equally often. The call goes
    through an actor and takes milliseconds.
    """
    return ray.train.get_preemption_info() is not None
