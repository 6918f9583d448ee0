"""Why a service cannot start, in one sentence."""

import re
from pathlib import Path

from ray import serve as ray_serve

from serve.models.loading import ModelLoader
from serve.models.model_plan import ModelPlan
from serve.models.repository import open_repository
from serve.models.storage import check_readable
from serve.settings import ServeConfig
from sottovoce.errors import CheckpointError
from sottovoce.model.variants import TORCH, model_bytes, read_variant_record

_ERROR_LINE = re.compile(r"^(?:[a-z_]\w*\.)*(\w*(?:Error|Exception|Killed)\w*): (\S.*)$", re.MULTILINE)
_MAX_REASON = 600  # letters


def check_default_files(config: ServeConfig) -> None:
    """Check the default model's files by their sizes, before anything is started; a missing model is found elsewhere.

    Raises:
        ConfigError: the models folder cannot be read.
        CheckpointError: a file is missing or shorter than it was written.
    """
    repository = open_repository(config)
    check_readable(repository.models_folder)
    entry = repository.read().get(config.model_id)
    plan = None if entry is None else entry.plan(None)
    if plan is not None:
        _check_files(plan)


def _check_files(plan: ModelPlan) -> None:
    if plan.variant == TORCH:
        ModelLoader(num_threads=1).measure(plan)  # reads the headers of the weights
        return
    found = model_bytes(Path(plan.folder), plan.variant)
    record = read_variant_record(Path(plan.folder))
    if record is not None and found < record.size_bytes:
        remedy = "copy the folder again, or run jobs.export_model again"
        raise CheckpointError(
            plan.folder, f"its model files have {found} of {record.size_bytes} bytes: one is truncated; {remedy}"
        )


def explain_failure(app_name: str) -> str:
    """Return why an application could not be deployed: the error that its replicas raised."""
    application = ray_serve.status().applications.get(app_name)
    messages = [] if application is None else [one.message for one in application.deployments.values()]
    for message in messages:
        found = _ERROR_LINE.findall(message)
        if found:
            name, sentence = found[-1]
            return f"{sentence[:_MAX_REASON]} ({name})"
    return "Ray's dashboard and the logs in /tmp/ray/session_latest/logs/serve say why"
