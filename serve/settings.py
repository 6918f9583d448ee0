"""Settings of the service: models, scaling and limits."""

import math
import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from sottovoce.config import Config
from sottovoce.model.variants import TORCH, Device, ServedVariant
from sottovoce.recognize.longform.options import LongFormOptions
from sottovoce.schema import MAX_DURATION_S, SAMPLING_RATE

QUICKSTART_FOLDER = Path("runs/quickstart")
"""Where the quickstart leaves everything, the models it serves included."""

LONG_SHARE = 0.75
"""Share of ``Limits.max_decoded_bytes`` that long recordings may take."""
_BYTES_PER_AUDIO_S = 2 * SAMPLING_RATE  # of 16-bit PCM

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)
# As browsers send it: a scheme (also an extension's), a host in lower case, and a port that is not the scheme's own.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?", re.ASCII)


class Limits(Config):
    """Limits of one request, and of all requests together."""

    max_body_bytes: int = Field(default=25 * 2**20, gt=0)
    """Largest request body; OpenAI's own limit."""
    max_duration_s: float = Field(default=MAX_DURATION_S, gt=0.0)
    """Longest audio after decoding."""
    deadline_s: float = Field(default=300.0, gt=0.0)
    """Longest time from a request's first byte to its answer, without what its audio adds; 504 after it."""
    deadline_per_audio_s: float = Field(default=0.5, ge=0.0)
    """Seconds that each second of audio adds to the deadline: an hour has half an hour more."""
    max_concurrent_requests: int = Field(default=64, gt=0)
    """Requests that one gateway replica decodes and transcribes at a time; 503 above it."""
    max_uploads: int = Field(default=512, gt=0)
    """Requests that one gateway replica holds open, slow uploads included. At the limit the slowest upload of the
    busiest client ends with 408 and makes room; 503 if all are quick."""
    max_requests_per_key: int | None = Field(default=256, gt=0)
    """Requests with one API key that one gateway replica holds open, 429 above it; without keys, requests from one
    address, 503 above it. None sets no limit."""
    upload_timeout_s: float = Field(default=120.0, gt=0.0)
    """Longest time from a request's first byte to its last one; 408 after it."""
    min_upload_bytes_per_s: float = Field(default=2048.0, gt=0.0)
    """Lowest mean rate of an upload after its first 20 seconds, or 2 if it comes in pieces below 1 KiB; else 408."""
    num_decoders: int = Field(default=2, gt=0)
    """Recordings whose first ten seconds one gateway replica decodes at a time, each in a process. What is longer goes
    on in a process for short recordings, or in one for long ones."""
    short_audio_s: float = Field(default=60.0, gt=0.0)
    """Longest recording that counts as short: short ones are decoded and transcribed before long ones."""
    max_decode_s: int = Field(default=120, gt=0)
    """Seconds of processor time that decoding one recording may take; 400 above it."""
    max_decoded_bytes: int = Field(default=768 * 2**20, gt=0)
    """Decoded audio that one gateway replica holds, 115 MB for an hour; 503 above it. A quarter is for short recordings
    alone."""
    max_windows_in_flight: int = Field(default=8, gt=0)
    """Windows of one request in flight at a time, so that a long recording leaves room for others."""
    max_long_windows_beside_short: int = Field(default=1, gt=0)
    """Windows of all long recordings that one gateway replica has in flight while short ones are transcribed. Several
    transcribers have room for more."""

    @property
    def longest_deadline_s(self) -> float:
        """The deadline of the longest recording."""
        return self.deadline_s + self.deadline_per_audio_s * self.max_duration_s

    @model_validator(mode="after")
    def _check_decoded_bytes(self) -> Self:
        needed = math.ceil(_BYTES_PER_AUDIO_S * self.max_duration_s / LONG_SHARE)
        if self.max_decoded_bytes < needed:
            small = f"max_decoded_bytes {self.max_decoded_bytes} cannot hold {self.max_duration_s:g} s of audio"
            raise ValueError(f"{small}; raise it to {needed} or lower max_duration_s")
        return self


class Batching(Config):
    """How windows of different requests are decoded together."""

    max_batch_size: int = Field(default=8, gt=0)
    """Windows that begin together; as many again may still be decoded at other temperatures."""
    batch_wait_timeout_s: float = Field(default=0.01, ge=0.0)
    """Longest wait for a batch to fill."""


class Autoscaling(Config):
    """How many replicas of one deployment run."""

    min_replicas: int = Field(default=1, ge=0)
    """Replicas without load. 0, for transcribers only, frees their memory: the next request waits until one runs."""
    max_replicas: int = Field(default=1, ge=1)
    """Most replicas. Never more transcribers than have their CPUs, nor more gateways than CPUs."""
    target_ongoing_requests: float = Field(default=8.0, gt=0.0)
    """Requests (for the transcriber: windows) per replica that scaling aims at."""
    upscale_delay_s: float = Field(default=10.0, ge=0.0)
    """Seconds that the load must stay above the aim before replicas are added; the first of none starts at once."""
    downscale_delay_s: float = Field(default=300.0, ge=0.0)
    """Seconds that the load must stay below the aim before replicas are removed."""

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
    """Export folder, with the variants that ``jobs.export_model`` wrote."""
    variant: ServedVariant | None = None
    """Variant that the bare name selects: torch, or an export format such as int8 or ct2-int8. None selects the fastest
    exported one that may be served, as measured at its export; without one, torch."""
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
    """Checkpoint or export folder, or Hub id, served as model_id: nothing else is ever served in its place. None serves
    the model promoted under that name."""
    variant: ServedVariant | None = None
    """Which variant of model: torch for a checkpoint, an export format such as int8 or ct2-int8 for an export. None
    takes the fastest one that may be served, as measured at its export; for a checkpoint torch."""
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
    device: Device = "auto"
    """What transcribers compute on. auto takes cuda where Ray has a GPU and the default model's variant runs on one,
    else cpu. On cuda, other models whose variant runs on CPUs alone compute on the replica's CPUs."""
    num_gpus: float = Field(default=1.0, gt=0.0)
    """GPUs reserved per transcriber replica on cuda: a whole number, or a fraction below 1 of one that replicas
    share."""
    max_gpu_bytes: int = Field(default=16 * 2**30, gt=0)
    """GPU memory in bytes for models in each transcriber replica on cuda, beside ``max_model_bytes`` on the host."""
    api_keys_env: str | None = None
    """Environment variable that holds the accepted API keys, comma-separated; None accepts every request."""
    allow_origins: tuple[str, ...] = ()
    """Origins whose pages may call the service from a browser (CORS), such as https://example.org, or * for all. None
    by default: a browser then refuses to show a page the answers."""
    long_form: LongFormOptions = LongFormOptions()
    """How recordings longer than the model's context are split when a request has no chunking_strategy."""
    limits: Limits = Limits()
    batching: Batching = Batching()
    transcriber_scaling: Autoscaling = Autoscaling(max_replicas=4)
    gateway_scaling: Autoscaling = Autoscaling(min_replicas=2, max_replicas=4, target_ongoing_requests=32.0)
    drain_timeout_s: float = Field(default=300.0, ge=0.0)
    """Longest wait for requests in flight when the service stops, is deployed again or loses a replica to scaling."""

    @field_validator("num_gpus")
    @classmethod
    def _check_num_gpus(cls, num_gpus: float) -> float:
        if num_gpus > 1.0 and num_gpus != int(num_gpus):
            raise ValueError(
                f"num_gpus {num_gpus:g}: Ray reserves whole GPUs, or a fraction of one; use {round(num_gpus)}"
            )
        return num_gpus

    @model_validator(mode="after")
    def _check_gateways(self) -> Self:
        if self.gateway_scaling.min_replicas == 0:
            raise ValueError("gateway_scaling.min_replicas is 0, and no gateway would wake the others; use at least 1")
        return self

    @field_validator("allow_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and _ORIGIN.fullmatch(origin) is None:
                form = "scheme://host or scheme://host:port, in lower case and without a path or a last slash, or '*'"
                raise ValueError(f"allow_origins: {origin!r} is not an origin; write {form}")
        return origins

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
        own = NamedModel(
            name=self.model_id,
            checkpoint=self.model if self.variant in (None, TORCH) else None,
            export=self.model if self.variant != TORCH else None,
            variant=self.variant,
        )
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
