"""The settings of one fine-tuning run."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from pydantic import Field, JsonValue, PositiveInt, model_validator

from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig
from sottovoce.config import Config
from sottovoce.errors import ConfigError
from sottovoce.model.adapter import LoraSettings
from sottovoce.schema import MAX_CONTEXT_S
from sottovoce.text.normalize import Normalizer

Precision: TypeAlias = Literal["auto", "fp16", "bf16", "fp32"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Method: TypeAlias = Literal["full", "frozen_encoder", "frozen_embeddings", "lora", "qlora"]


class TrainingConfig(Config):
    """How a base model is fine-tuned; a step is one change of the weights."""

    base: str = "micro"
    """The model to start from: a checkpoint folder, a Hub id, or micro, which the package brings along."""
    method: Method = "full"
    """Train all weights; all but the encoder's; all but the embeddings of tokens and positions (and the output layer,
    which is the same matrix); or only an adapter beside a frozen model, which qlora holds in 4 bits on a GPU."""
    lora: LoraSettings = LoraSettings()
    """The adapter of lora and qlora; its learning rate is ten to a hundred times that of full training, about 1e-3."""
    num_epochs: int = Field(default=10, ge=1)
    """Times each utterance is read."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many steps, whatever the epochs say."""
    learning_rate: float | None = Field(default=None, gt=0.0)
    """Highest rate, reached after the warm-up; it falls to zero in a straight line. Where none is given, the one known
    to work for the model's size and the method."""
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    """On matrices only, not on biases and norms."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    accumulation_steps: int = Field(default=1, ge=1)
    """Batches each worker adds up for one step, with the most workers."""
    gradient_checkpointing: bool = False
    """Less memory for a quarter more time."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    audio_context_s: tuple[float, float] | None = None
    """Shortest and longest audio context [s] to train on; the base's own where none is given. Stock Whisper: 30, 30."""
    spec_augment: SpecAugmentConfig = SpecAugmentConfig()
    """Masks over the log-mel of training speech; changes to the speech itself are the data's ``augment``."""
    timestamp_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Part of the examples whose labels carry the times of their utterances, so that the model goes on writing them."""
    previous_text_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Part of the examples that begin with what was said before, where that is known, so that a prompt is heeded."""
    precision: Precision = "auto"
    """auto is fp16 with a gradient scaler on a GPU and fp32 on a CPU; the weights themselves stay fp32."""
    device: Device = "auto"
    """auto looks for a GPU in the cluster; name cuda where GPUs only start when they are asked for."""
    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 2
    """Data-parallel workers; one GPU each where the device is cuda. Two numbers, fewest and most: the run goes on with
    what is left when nodes are lost, and takes them back in. A step reads the same utterances with any number."""
    resize_interval_s: float = Field(default=60.0, gt=0.0)
    """Seconds between looks for nodes to grow by, where ``num_workers`` is two numbers; growing repeats the steps since
    the last checkpoint."""
    cpus_per_worker: float = Field(default=0.5, gt=0.0)
    """CPUs each worker reserves; what is left decodes audio."""
    threads_per_worker: int = Field(default=1, ge=1)
    """Threads each worker computes with on a CPU, and makes log-mel with on a GPU."""
    evaluate_every_steps: int = Field(default=100, ge=1)
    """Steps between evaluations, each of which saves a checkpoint; the last step is always evaluated."""
    save_every_steps: int | None = Field(default=None, ge=1)
    """Further checkpoints between evaluations, for a run to resume from."""
    evaluation_batch_size: int = Field(default=16, ge=1)
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations in a row without a lower WER; never when none is given."""
    normalizer: Normalizer = "english"
    """What both sides of WER and CER go through; english leaves texts in other languages to basic."""
    max_reject_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """Stop where more than this part of the training recordings cannot be decoded."""
    max_failures: int = Field(default=3, ge=0)
    """Times the run resumes by itself after a worker died."""
    stuck_after_s: float | None = Field(default=300.0, gt=0.0)
    """Name a worker that stands still for this long, and resume the run without it; none watches nobody. Loading and
    saving get ten times as long. Raise it where data or one batch of an evaluation takes minutes."""
    max_skipped_in_a_row: int = Field(default=10, ge=0)
    """Steps in a row without a finite loss and gradient that are skipped before the run stops. In fp16 the first ones
    are no fault: they count once the loss scale, which each of them halves, has fallen below 1."""
    checkpoints: str | None = None
    """Folder or URI (s3://..., gs://...) that keeps checkpoints, those of a run below the name of its output folder;
    the output folder itself when none is given."""
    keep_best: int = Field(default=1, ge=1)
    """Checkpoints with the lowest WER that are kept, besides the newest; two are always kept."""
    log_every_steps: int = Field(default=10, ge=1)
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Where curves go."""
    seed: int = 0

    @property
    def peak_lr(self) -> float:
        """The learning rate, once ``build_run`` has put it where none was given."""
        assert self.learning_rate is not None, "build_run puts it in"
        return self.learning_rate

    @property
    def trains_adapter(self) -> bool:
        """The base stays as it is, and what comes out is an adapter."""
        return self.method in ("lora", "qlora")

    @property
    def max_workers(self) -> int:
        """The most workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def num_microbatches(self) -> int:
        """Batches of a step, those of all workers."""
        return self.max_workers * self.accumulation_steps

    @model_validator(mode="after")
    def _check_workers(self) -> "TrainingConfig":
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            raise ValueError(
                f"num_workers must be fewest and most, not {self.num_workers[0]} and {self.num_workers[1]}"
            )
        return self

    @model_validator(mode="after")
    def _check_context(self) -> "TrainingConfig":
        if self.audio_context_s is not None:
            shortest, longest = self.audio_context_s
            if not 0.0 < shortest <= longest <= MAX_CONTEXT_S:
                raise ValueError(f"audio_context_s must be 0 < shortest <= longest <= 30, not {shortest}, {longest}")
        return self


_OPERATIONAL = frozenset(
    {
        # what a step learns from is num_microbatches, which the cursor compares; how many workers share it may change
        "num_workers",
        "accumulation_steps",
        "resize_interval_s",
        # where and how fast it is computed, but for the precision
        "device",
        "precision",
        "cpus_per_worker",
        "threads_per_worker",
        "gradient_checkpointing",
        "evaluation_batch_size",
        # what is kept and shown of it
        "save_every_steps",
        "checkpoints",
        "keep_best",
        "log_every_steps",
        "trackers",
        # what ends it early without changing it
        "max_reject_fraction",
        "max_failures",
        "stuck_after_s",
        "max_skipped_in_a_row",
    }
)
"""Settings that may change while a run goes on; a setting that is not named here may not."""

CHANGEABLE = frozenset(f"training.{name}" for name in _OPERATIONAL - {"checkpoints"})
"""The same as a job names them. Where checkpoints are kept is not among them: the run would not find them again."""


def shaping_settings(config: TrainingConfig, *, precision: str) -> dict[str, JsonValue]:
    """Give the settings that the weights of a run follow from, by the names they have on the command line.

    Epochs and steps are among them: the learning rate falls from the first step to the last.

    Args:
        config: of the run.
        precision: what ``auto`` came to.
    """
    left_out = _OPERATIONAL if config.trains_adapter else _OPERATIONAL | {"lora"}
    values = config.model_dump(mode="json", exclude=set(left_out))
    return {"precision": precision, **dict(flatten(values))}


def check_settings(saved: Mapping[str, JsonValue], expected: Mapping[str, JsonValue], *, location: str) -> None:
    """Make sure that a run goes on from checkpoints of its own.

    Args:
        saved: from the checkpoint. A setting one of the two releases does not know is not compared, so that nothing is
            where an older one kept none.
        expected: the run's, as they are now.
        location: of the checkpoints.

    Raises:
        ConfigError: they differ: the checkpoints are another run's, or the settings have changed since.
    """
    known = {name: value for name, value in expected.items() if name in saved}
    changes = describe_changes({name: saved[name] for name in known}, known)
    if changes:
        raise ConfigError(
            f"{location} holds the checkpoints of a run with other settings: {'; '.join(changes)}. Set them back to go "
            "on with that run; for a new one give the output folder another name, or name another place in the setting "
            "checkpoints"
        )


def describe_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], *, leaving_out: Collection[str] = ()
) -> list[str]:
    """Say of each setting that differs what it was and what it is.

    Args:
        before: settings, nested ones as mappings.
        now: the same, later; what only one of the two has counts as none in the other.
        leaving_out: names of settings, as in ``training.max_failures``, which may differ.
    """
    old, new = dict(flatten(before)), dict(flatten(now))
    return [
        f"{name} was {_show(old.get(name))} and is now {_show(new.get(name))}"
        for name in {**old, **new}
        if old.get(name) != new.get(name) and name not in leaving_out
    ]


def _show(value: JsonValue) -> str:
    return "none" if value is None else str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Give each setting with its name on the command line, as in ``lora.rank``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
