"""What trackers need around them: their packages, the user's settings on every node, and quiet."""

import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from sottovoce.errors import TrackerUnavailableError

_PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow-skinny", "mlflow"), "wandb": ("wandb",)}
# What a user sets for trackers in the driver's shell. No keys: Ray's dashboard shows the environment of workers, so
# WANDB_API_KEY and MLFLOW_TRACKING_TOKEN belong into the nodes' own environment.
_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TAGS",
    "WANDB_MODE",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    "WANDB_PROJECT",
    "WANDB_RUN_GROUP",
    "WANDB_TAGS",
)
_QUIET_ENVIRONMENT = {
    "mlflow": {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder needs no database; MLflow 3 asks for this before it takes one
        # its own defaults retry for minutes, in which all ranks would stand still
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    },
    "wandb": {"WANDB_ERROR_REPORTING": "false"},
}


def check_trackers(names: Iterable[str]) -> None:
    """See that the packages of all trackers are installed.

    Raises:
        TrackerUnavailableError: one is not.
    """
    for name in names:
        if not any(map(_is_installed, _PACKAGES[name])):
            raise TrackerUnavailableError(name, _PACKAGES[name][0])


def tracker_environment() -> dict[str, str]:
    """Give the driver's settings of trackers to its workers, which otherwise have those of their node's Ray."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def keep_quiet(name: str) -> None:
    """Set, before a tracker is imported, what keeps it from reporting home and from waiting long; the user's counts."""
    for variable, value in _QUIET_ENVIRONMENT.get(name, {}).items():
        os.environ.setdefault(variable, value)


def _is_installed(package: str) -> bool:
    """Tell by metadata: a folder named wandb in the working directory would pass for the module."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
