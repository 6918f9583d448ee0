"""What a run computes on, decided in the driver before anything starts."""

from typing import Literal

import ray
import torch

from sottovoce.errors import PrecisionUnavailableError
from sottovoce.train.cluster import join_cluster
from sottovoce.train.settings import Device, Precision


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
