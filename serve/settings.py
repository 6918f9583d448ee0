"""Settings of the service: what is served, how it scales, and what a request may ask of it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sottovoce.config import Config


class Limits(Config):
    """What one request, and all of them together, may take."""

    max_body_bytes: int = Field(default=25 * 2**20, gt=0)
    """Largest request body; OpenAI's own limit."""
    max_duration_s: float = Field(default=600.0, gt=0.0)
    """Longest audio after decoding."""
    deadline_s: float = Field(default=300.0, gt=0.0)
    """Longest time from a request's first byte to its answer; 504 after it."""
    max_concurrent_requests: int = Field(default=64, gt=0)
    """Requests one gateway replica decodes and transcribes at a time; 503 above it."""
    max_uploads: int = Field(default=512, gt=0)
    """Requests one gateway replica holds open, slow uploads included."""
    num_decoders: int = Field(default=2, gt=0)
    """Recordings one gateway replica decodes at a time."""
    max_windows_in_flight: int = Field(default=8, gt=0)
    """Windows of one request that wait or run at a time, so that a long recording leaves room for others."""


class Batching(Config):
    """How windows of different requests share one call of the engine."""

    max_batch_size: int = Field(default=8, gt=0)
    """Windows in one call."""
    batch_wait_timeout_s: float = Field(default=0.01, ge=0.0)
    """Longest wait for a batch to fill."""


class Autoscaling(Config):
    """How many replicas of one deployment run."""

    min_replicas: int = Field(default=1, ge=1)
    """Replicas when nobody asks."""
    max_replicas: int = Field(default=1, ge=1)
    """Most replicas; each needs its CPUs."""
    target_ongoing_requests: float = Field(default=8.0, gt=0.0)
    """Requests (for the transcriber: windows) per replica that scaling aims at."""

    @model_validator(mode="after")
    def _check_range(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self


class ServeConfig(Config):
    """One served model."""

    model: str = "runs/serving/current"
    """Checkpoint or export folder, relative to where the service is started; or a Hub id."""
    variant: Literal["torch", "fp32", "int8"] = "int8"
    """Engine: PyTorch, or ONNX Runtime in one of the exported precisions."""
    model_id: str = "sottovoce"
    """Name clients ask for."""
    aliases: tuple[str, ...] = ("whisper-1",)
    """Further names for the same model, so that clients written for OpenAI need no change."""
    num_threads: int = Field(default=1, gt=0)
    """Engine threads, and CPUs reserved, per transcriber replica."""
    api_keys_env: str | None = None
    """Environment variable that holds the accepted API keys, comma-separated; open to everyone when None."""
    limits: Limits = Limits()
    batching: Batching = Batching()
    transcriber_scaling: Autoscaling = Autoscaling(max_replicas=4)
    gateway_scaling: Autoscaling = Autoscaling(max_replicas=2, target_ongoing_requests=32.0)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Every name of the model, its own first."""
        return tuple(dict.fromkeys((self.model_id, *self.aliases)))

    def resolved_model(self) -> str:
        """Give the folder as an absolute path, for replicas run elsewhere; a Hub id stays as it is."""
        folder = Path(self.model).expanduser()
        return str(folder.resolve()) if folder.exists() else self.model
