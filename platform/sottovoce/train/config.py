"""The settings of one fine-tuning run."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from pydantic import Field, JsonValue, PositiveInt, model_validator

from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig
from sottovoce.config import Config
from sottovoce.errors import ConfigError
from sottovoce.model.adapter import LoraSettings
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.variants import Device
from sottovoce.schema import MAX_CONTEXT_S
from sottovoce.text.normalize import Normalizer
from sottovoce.train.methods import METHODS, MethodName, known_range, round_rate

Precision: TypeAlias = Literal["auto", "fp16", "bf16", "fp32"]


class TrainingConfig(Config):
    """How a base model is fine-tuned. A step is one optimizer step."""

    base: str = "micro"
    """The model to start from: a checkpoint folder, a Hub id, or micro, which is part of the package."""
    method: MethodName = "full"
    """What is trained. full: all weights. frozen_encoder: all but the encoder's. frozen_embeddings: all but the
    embeddings of tokens and positions (and the output layer, which is the same matrix). lora, qlora: only an adapter
    beside a frozen model; qlora holds that model in 4 bits, on a GPU. adapt_context: the encoder learns to read trimmed
    contexts as the base model reads the longest one; see ``jobs.adapt_context``."""
    lora: LoraSettings = LoraSettings()
    """The adapter of lora and qlora. Its learning rate is ten to a hundred times that of full training, about 1e-3."""
    num_epochs: int = Field(default=10, ge=1)
    """How often each utterance is read."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many steps, whatever the number of epochs."""
    learning_rate: float | None = Field(default=None, gt=0.0)
    """Peak learning rate. The rate rises to it during the warm-up and then falls linearly to zero. The default is the
    rate known to work for the model's size and the method."""
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Applies to matrices only, not to biases and norms."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    accumulation_steps: int = Field(default=1, ge=1)
    """Batches whose gradients each worker accumulates for one step, counted at the largest number of workers."""
    gradient_checkpointing: bool = False
    """Needs less memory and a quarter more time."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    audio_context_s: tuple[float, float] | None = None
    """Shortest and longest audio context [s] to train on. The default is the base model's. Stock Whisper: 30, 30."""
    audio_context_margin_s: float = Field(default=0.0, ge=0.0, le=MAX_CONTEXT_S)
    """Silence [s] that a trimmed context holds at least after the speech. It needs ``audio_context_s``."""
    padded_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the batches that are padded to the model's longest input, 30 s for stock Whisper, so that a model
    trained on trimmed contexts stays good in programs that pad."""
    spec_augment: SpecAugmentConfig = SpecAugmentConfig()
    """Masks on the log-mel spectrograms of training speech. Changes to the waveform are in the data's ``augment``."""
    timestamp_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Fraction of the examples whose labels carry timestamps, so that the model does not forget to write them."""
    previous_text_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Fraction of the examples that begin with the text said before, where it is known, so that the model does not
    forget to follow a prompt."""
    precision: Precision = "auto"
    """auto is fp16 with a gradient scaler on a GPU and fp32 on a CPU. The weights themselves stay in fp32."""
    device: Device = "auto"
    """auto looks for a GPU in the cluster. Name cuda if GPU nodes start only on demand."""
    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Data-parallel workers; with device cuda each takes one GPU. The default is what the cluster has at the start of
    the run: one worker for each GPU; on CPUs two workers if there are at least two CPUs, else one. Two numbers are the
    fewest and the most: the run continues with the workers that are left when nodes are lost, and grows again when
    nodes come back. A step reads the same utterances with any number of workers."""
    resize_interval_s: float = Field(default=60.0, gt=0.0)
    """Seconds between checks for new nodes, if ``num_workers`` is two numbers. Growing repeats the steps since the
    last checkpoint."""
    cpus_per_worker: float = Field(default=0.5, gt=0.0)
    """CPUs each worker reserves. The rest of the CPUs decode audio."""
    threads_per_worker: int = Field(default=1, ge=1)
    """Threads of each worker: for all its work on a CPU, for log-mel spectrograms on a GPU."""
    evaluate_every_steps: int = Field(default=100, ge=1)
    """Steps between evaluations. Each evaluation saves a checkpoint. The last step is always evaluated."""
    save_every_steps: int | None = Field(default=None, ge=1)
    """Steps between additional checkpoints from which a run can resume."""
    evaluation_batch_size: int = Field(default=16, ge=1)
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations in a row without a lower WER, or CER in languages without spaces. By default
    never."""
    normalizer: Normalizer = "auto"
    """Normalizes references and hypotheses before WER and CER. auto follows the language: english is Whisper's for
    English, marks keeps the marks that spell, unspaced closes the spaces of languages that put none between words,
    pointed is for Yiddish. english and basic are those of published results: english uses basic for texts in other
    languages, and basic cuts words at their marks."""
    max_reject_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """Stop if a larger fraction of the recordings, or of those of the validation split, cannot be decoded."""
    max_failures: int = Field(default=3, ge=0)
    """How often the run resumes by itself after a worker died."""
    stuck_after_s: float | None = Field(default=300.0, gt=0.0)
    """Seconds without progress after which a worker is named and replaced, and the run resumes. none watches no
    worker. Loading and saving may take ten times as long. Raise it if data or one batch of an evaluation takes
    minutes."""
    max_skipped_in_a_row: int = Field(default=10, ge=0)
    """Most steps in a row that may be skipped because loss or gradient is not finite; one more stops the run. In fp16
    a skipped step counts only once the loss scale, which each of them halves, has fallen below 1."""
    checkpoints: str | None = None
    """Folder or URI (s3://..., gs://...) for checkpoints; those of a run are below the name of its output folder.
    The default is the output folder itself."""
    keep_best: int = Field(default=1, ge=1)
    """How many checkpoints with the lowest WER (CER in languages without spaces) are kept besides the newest. At
    least two checkpoints are kept."""
    log_every_steps: int = Field(default=10, ge=1)
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Experiment trackers that receive the metrics."""
    seed: int = 0

    @property
    def peak_lr(self) -> float:
        """The peak learning rate of a run; ``build_run`` has set it."""
        assert self.learning_rate is not None, "build_run sets it"
        return self.learning_rate

    @property
    def audio_context(self) -> AudioContext | None:
        """The contexts to train on; None for the base model's."""
        if self.audio_context_s is None:
            return None
        return AudioContext(*self.audio_context_s, self.audio_context_margin_s)

    @property
    def trains_adapter(self) -> bool:
        """Whether the base stays as it is and the result is an adapter."""
        return METHODS[self.method].trains_adapter

    @property
    def worker_range(self) -> tuple[int, int]:
        """The fewest and the most workers of a run; ``build_run`` has set them."""
        assert self.num_workers is not None, "build_run sets it"
        return (self.num_workers, self.num_workers) if isinstance(self.num_workers, int) else self.num_workers

    @property
    def max_workers(self) -> int:
        """The most workers of a run."""
        return self.worker_range[1]

    @property
    def num_microbatches(self) -> int:
        """Batches of one step, over all workers."""
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
        elif self.audio_context_margin_s:
            raise ValueError("audio_context_margin_s needs audio_context_s, for example 2, 30")
        return self


def settle_rate(config: TrainingConfig, num_weights: int) -> TrainingConfig:
    """Set the learning rate known to work for a base model of this size, if none is set."""
    if config.learning_rate is not None:
        return config
    return config.model_copy(update={"learning_rate": round_rate(known_range(num_weights, config.method).known)})


_OPERATIONAL = frozenset(
    {
        # a step learns from num_microbatches batches, which the cursor compares; the number of workers may change
        "num_workers",
        "accumulation_steps",
        "resize_interval_s",
        # where and how fast it is computed, except for the precision
        "device",
        "precision",
        "cpus_per_worker",
        "threads_per_worker",
        "gradient_checkpointing",
        "evaluation_batch_size",
        # what is kept and shown
        "save_every_steps",
        "checkpoints",
        "keep_best",
        "log_every_steps",
        "trackers",
        # what ends the run early without changing it
        "max_reject_fraction",
        "max_failures",
        "stuck_after_s",
        "max_skipped_in_a_row",
    }
)
"""Settings that may change while a run goes on. All other settings may not."""

CHANGEABLE = frozenset(f"training.{name}" for name in _OPERATIONAL - {"checkpoints"}) | {
    "data.tasks_per_worker",
    "data.cpus_per_task",
    "data.prefetch_batches",
}
"""Settings of a job that may change while its run goes on. ``checkpoints`` may not: the run would not find its own."""


def shaping_settings(config: TrainingConfig, *, precision: str) -> dict[str, JsonValue]:
    """Return the settings that determine the weights of a run, by their names on the command line.

    Epochs and steps are among them, because the learning rate falls from the first step to the last.

    Args:
        config: of the run.
        precision: the run's; ``auto`` is resolved.
    """
    left_out = _OPERATIONAL if config.trains_adapter else _OPERATIONAL | {"lora"}
    values = config.model_dump(mode="json", exclude=set(left_out))
    return {"precision": precision, **dict(flatten(values))}


def check_settings(saved: Mapping[str, JsonValue], expected: Mapping[str, JsonValue], *, location: str) -> None:
    """Check that a run resumes from its own checkpoints.

    Args:
        saved: the settings in the checkpoint. Settings that are newer than the checkpoint count as their defaults,
            those that no longer exist are ignored. An empty mapping, from an old release, is not compared.
        expected: the settings of the run now.
        location: of the checkpoints.

    Raises:
        ConfigError: the settings differ: the checkpoints belong to another run, or the settings have changed since.
    """
    defaults = dict(flatten(TrainingConfig().model_dump(mode="json")))
    before = {name: saved.get(name, defaults.get(name, value)) for name, value in expected.items()}
    changes = describe_changes(before, expected) if saved else []
    if changes:
        raise ConfigError(
            f"{location} holds the checkpoints of a run with other settings: {'; '.join(changes)}. Set them back to go "
            "on with that run; for a new one give the output folder another name, or name another folder in the "
            "setting checkpoints"
        )


def describe_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], *, leaving_out: Collection[str] = ()
) -> list[str]:
    """Describe each setting that differs by its old and its new value.

    Args:
        before: settings, nested ones as mappings.
        now: the same settings later. A setting that only one of the two has counts as none in the other.
        leaving_out: names of settings that may differ, as in ``training.max_failures``.
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
    """Yield each setting with its name on the command line, as in ``lora.rank``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
