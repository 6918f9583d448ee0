"""Settings of the service: models, scaling and limits."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from sottovoce.config import Config
from sottovoce.model.variants import ServedVariant
from sottovoce.recognize.longform.options import LongFormOptions
from sottovoce.schema import MAX_DURATION_S

QUICKSTART_FOLDER = Path("runs/quickstart")
"""Where the quickstart leaves everything, the models it serves included."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)


class Limits(Config):
    """Limits of one request, and of all requests together."""

    max_body_bytes: int = Field(default=25 * 2**20, gt=0)
    """Largest request body; OpenAI's own limit."""
    max_duration_s: float = Field(default=MAX_DURATION_S, gt=0.0)
    """Longest audio after decoding."""
    deadline_s: float = Field(default=300.0, gt=0.0)
    """Longest time from a request's first byte to its answer; 504 after it."""
    max_concurrent_requests: int = Field(default=64, gt=0)
    """Requests that one gateway replica decodes and transcribes at a time; 503 above it."""
    max_uploads: int = Field(default=512, gt=0)
    """Requests that one gateway replica holds open, slow uploads included."""
    max_requests_per_key: int | None = Field(default=None, gt=0)
    """Requests with one API key that one gateway replica holds open, 429 above it; without keys, all count together."""
    num_decoders: int = Field(default=2, gt=0)
    """Recordings that one gateway replica decodes at a time."""
    max_windows_in_flight: int = Field(default=8, gt=0)
    """Windows of one request in flight at a time, so that a long recording leaves room for others."""


class Batching(Config):
    """How windows of different requests are batched into one engine call."""

    max_batch_size: int = Field(default=8, gt=0)
    """Windows in one call."""
    batch_wait_timeout_s: float = Field(default=0.01, ge=0.0)
    """Longest wait for a batch to fill."""


class Autoscaling(Config):
    """How many replicas of one deployment run."""

    min_replicas: int = Field(default=1, ge=1)
    """Replicas without load."""
    max_replicas: int = Field(default=1, ge=1)
    """Most replicas; each needs its CPUs."""
    target_ongoing_requests: float = Field(default=8.0, gt=0.0)
    """Requests (for the transcriber: windows) per replica that scaling aims at."""

    @model_validator(mode="after")
    def _check_range(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            bounds = f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            raise ValueError(f"{bounds}; lower the first or raise the second")
        return self


class ModelFiles(Config):
    """Where a model's files are. Paths are relative to where the program is started."""

    checkpoint: str | None = None
    """Checkpoint or adapter folder, or Hub id: variant torch."""
    export: str | None = None
    """Export folder: variants fp32 and int8."""
    variant: ServedVariant | None = None
    """torch, fp32 or int8: the variant that the bare name selects. None selects the first of int8, fp32 and torch that
    may be served."""
    base: str | None = None
    """Base model of an adapter, if not the one the adapter names. Adapters of one base share its weights."""
    assistant: str | None = None
    """Checkpoint of a smaller assistant model for variant torch: the same text, sooner (speculative decoding)."""


class ServedFiles(ModelFiles):
    """Files of a served model: a checkpoint, an export, or both."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if self.checkpoint is None and self.export is None:
            raise ValueError("name a checkpoint, an export, or both")
        return self

    def resolved(self) -> Self:
        """Return a copy with absolute folders, since replicas run in other folders; Hub ids are kept."""
        paths = {name: getattr(self, name) for name in ("checkpoint", "export", "base", "assistant")}
        return self.model_copy(update={name: resolve_path(path) for name, path in paths.items() if path is not None})


class NamedModel(ServedFiles):
    """A model that is served as long as the service runs."""

    name: str
    """Model id in requests."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return checked_name(name)


class ServeConfig(Config):
    """Settings of one service. A model in the settings precedes a promoted one, which precedes a plain folder."""

    model: str | None = None
    """Checkpoint or export folder, or Hub id, served as model_id; None serves the model promoted under that name."""
    variant: ServedVariant = "int8"
    """Which variant of model: torch for a checkpoint, fp32 or int8 for an export."""
    model_id: str = "sottovoce"
    """The default model: loaded before the service is ready."""
    aliases: tuple[str, ...] = ("whisper-1",)
    """Aliases of the default model, so that clients written for OpenAI need no change."""
    models: tuple[NamedModel, ...] = ()
    """Further models, by name."""
    models_folder: str = "runs/models"
    """The model repository. jobs.promote_model writes into it; a checkpoint, adapter or export folder in it is served
    under its folder's name. On a cluster, storage that all nodes share."""
    until_promoted: str | None = None
    """Checkpoint or export folder served as model_id while nothing is promoted under it."""
    embedded_until_promoted: bool = False
    """Serve the embedded base model as model_id until another one is promoted."""
    max_model_bytes: int = Field(default=4 * 2**30, gt=0)
    """Memory in bytes for models in each transcriber replica; above it the least recently used model is unloaded."""
    num_threads: int = Field(default=1, gt=0)
    """Engine threads, and CPUs reserved, per transcriber replica."""
    api_keys_env: str | None = None
    """Environment variable that holds the accepted API keys, comma-separated; None accepts every request."""
    long_form: LongFormOptions = LongFormOptions()
    """How recordings longer than the model's context are split when a request has no chunking_strategy."""
    limits: Limits = Limits()
    batching: Batching = Batching()
    transcriber_scaling: Autoscaling = Autoscaling(max_replicas=4)
    gateway_scaling: Autoscaling = Autoscaling(max_replicas=2, target_ongoing_requests=32.0)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [model.name for model in self.pinned()]
        doubled = {name for name in names if names.count(name) > 1} | {*names, checked_name(self.model_id)} & {
            *self.aliases
        }
        if doubled:
            remedy = "model_id, the aliases and the names under models must all differ"
            raise ValueError(f"two models are called {', '.join(sorted(doubled))}: {remedy}")
        return self

    def pinned(self) -> tuple[NamedModel, ...]:
        """Return every model that the settings name, the default first."""
        if self.model is None:
            return self.models
        kind = "checkpoint" if self.variant == "torch" else "export"
        own = NamedModel.model_validate({"name": self.model_id, kind: self.model, "variant": self.variant})
        return (own, *self.models)


def checked_name(name: str) -> str:
    """Check that a model name cannot be mistaken for a variant and fits into a URL.

    Raises:
        ValueError: it holds other characters than letters, digits, dots, dashes, underscores, and slashes between them.
    """
    if not is_name(name):
        raise ValueError(f"model name {name!r}: use letters, digits, '.', '-' and '_', with '/' between parts")
    return name


def is_name(text: str) -> bool:
    """Return whether a text is a valid model name."""
    return _NAME.fullmatch(text) is not None


def resolve_path(path: str) -> str:
    """Return the absolute path of an existing folder; any other text, such as a Hub id, unchanged."""
    folder = Path(path).expanduser()
    return str(folder.resolve()) if folder.exists() else path
