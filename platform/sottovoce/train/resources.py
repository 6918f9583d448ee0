"""How many workers Ray Train runs, which of their deaths count, and how soon it notices what has changed."""

import math
import os
from typing import Literal

import ray
import ray.train
import torch
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig

from sottovoce.errors import ConfigError, PrecisionUnavailableError
from sottovoce.train.config import Device, Precision, TrainingConfig
from sottovoce.train.health.heartbeat import longest_allowed_s

_ENVIRONMENT = {
    # Ray asks its workers every 2 s by default: at each end, death and report the run waits for the next question.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A worker that does not answer for 10 min is given up by default. Answers come from a thread of their own, and a
    # dead process is noticed without them: this is for one that is stopped, or on a machine that hangs.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    # How long Ray waits for room for as many workers as it counted on, 60 s by default. Its count of nodes is up to
    # 20 s old, so that right after a loss it waits for a node that is gone; then it counts again, as often as needed.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    # Looks for nodes about to be taken away, 5 s apart by default, of the 30 s that clouds announce it ahead.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    # off by default; without it the dashboard knows of no training runs (/api/train/v2/runs/v1)
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
}
# How long a rank waits for the others in a sum: longer than the heartbeat lets any of them stand still, so that it is
# the heartbeat that ends such a wait, by name. torch's own error names nobody.
_SHORTEST_TIMEOUT_S = 600
_HEARTBEAT_MARGIN_S = 60  # to notice, to ask whether the process lives, and to kill it
_UNWATCHED_TIMEOUT_S = 12 * 3600  # guess; who sets no time for standing still expects long waits


def set_up_environment() -> None:
    """Set what Ray Train reads from the driver's environment, where the user has not."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def find_shortage(config: TrainingConfig, device: Literal["cpu", "cuda"]) -> str:
    """Say what the cluster lacks, as it stands, for the fewest workers a run starts with; nothing where it has all.

    Args:
        config: how many workers, and what each reserves.
        device: what they compute on.
    """
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fewest = config.num_workers if isinstance(config.num_workers, int) else config.num_workers[0]
    for kind, each in worker_resources(config, use_gpu=device == "cuda").items():
        if fewest * each > cluster.get(kind, 0.0):
            return f"{fewest} workers take {fewest * each:g} {kind} and the cluster has {cluster.get(kind, 0.0):g}"
    return ""


def check_room(config: TrainingConfig, device: Literal["cpu", "cuda"]) -> None:
    """Make sure that a run whose device was left to the cluster can start: Ray would wait for ever, saying nothing.

    Raises:
        ConfigError: there is no room for its workers.
    """
    shortage = find_shortage(config, device)
    if shortage:
        raise ConfigError(
            f"{shortage}: lower training.num_workers (one number, or fewest and most, as in 1 4) or "
            f"training.cpus_per_worker; where nodes start when they are asked for, name training.device ({device})"
        )


def worker_resources(config: TrainingConfig, *, use_gpu: bool) -> dict[str, float]:
    """Give what each worker reserves."""
    return {"CPU": config.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})


def build_scaling(config: TrainingConfig, *, use_gpu: bool) -> ScalingConfig:
    """Describe the workers: a fixed number, or as many as there is room for within two bounds."""
    return ScalingConfig(  # type: ignore[call-arg]  # mypy sees version 1, which Ray has left
        num_workers=config.num_workers,  # type: ignore[arg-type]  # as above
        use_gpu=use_gpu,
        resources_per_worker=worker_resources(config, use_gpu=use_gpu),
        elastic_resize_monitor_interval_s=config.resize_interval_s,
    )


def build_failures(config: TrainingConfig) -> FailureConfig:
    """Say how many deaths the run survives; those of nodes whose end was announced do not count."""
    return FailureConfig(  # type: ignore[call-arg]  # mypy sees version 1, which Ray has left
        max_failures=config.max_failures,
        max_preemption_failures=-1,
    )


def build_torch(config: TrainingConfig) -> TorchConfig:
    """Describe the workers' process group."""
    if config.stuck_after_s is None:
        return TorchConfig(timeout_s=_UNWATCHED_TIMEOUT_S)
    allowed_s = longest_allowed_s(config.stuck_after_s)
    return TorchConfig(timeout_s=max(_SHORTEST_TIMEOUT_S, math.ceil(allowed_s) + _HEARTBEAT_MARGIN_S))


def join_cluster() -> None:
    """Connect this process to Ray, once: to the cluster it was submitted to or that runs here, else to a new one."""
    if not ray.is_initialized():
        set_up_environment()  # what Ray starts here inherits it
        ray.init()


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Turn ``auto`` into what the workers will find: a GPU of the cluster, which is joined or started for that."""
    if device != "auto":
        return device
    join_cluster()
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return "cuda" if resources.get("GPU", 0) >= 1 else "cpu"


def resolve_device_here(device: Device) -> Literal["cpu", "cuda"]:
    """Turn ``auto`` into what this process finds, for work that it does itself."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_precision(precision: Precision, device: Literal["cpu", "cuda"]) -> Literal["fp16", "bf16", "fp32"]:
    """Turn ``auto`` into what the device is best at.

    Raises:
        PrecisionUnavailableError: fp16 without a GPU: a CPU computes it wrongly scaled and slowly.
    """
    if precision == "auto":
        return "fp16" if device == "cuda" else "fp32"
    if precision == "fp16" and device == "cpu":
        raise PrecisionUnavailableError("fp16", "a CUDA device")
    return precision


def is_node_leaving() -> bool:
    """Tell whether a node of this run is about to be taken away, so that a checkpoint now saves the steps so far.

    Every rank hears what the first one knows, and waits for the others: all must ask equally often. Asking goes through
    an actor and takes milliseconds.
    """
    return ray.train.get_preemption_info() is not None
