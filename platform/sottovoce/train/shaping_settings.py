"""The settings a run's weights follow from, kept in its checkpoints and compared when it goes on.

A run finds its checkpoints by the name of its output folder. Where several runs share a place for checkpoints, two of
one name would otherwise take each other's weights for their own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from sottovoce.errors import ConfigError
from sottovoce.train.settings import TrainingConfig

_OPERATIONAL = frozenset(
    {
        # what a step learns from is num_slots, which the cursor compares; how many workers share it may change
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


def shaping_settings(config: TrainingConfig, *, precision: str) -> dict[str, JsonValue]:
    """Give the settings that the weights of a run follow from, by the names they have on the command line.

    Epochs and steps are among them: the learning rate falls from the first step to the last.

    Args:
        config: of the run.
        precision: what ``auto`` came to.
    """
    left_out = _OPERATIONAL if config.trains_adapter else _OPERATIONAL | {"lora"}
    values = config.model_dump(mode="json", exclude=set(left_out))
    return {"precision": precision, **dict(_flatten(values))}


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
    changes = [
        f"{name} was {_show(saved[name])} and is now {_show(value)}"
        for name, value in expected.items()
        if name in saved and saved[name] != value
    ]
    if changes:
        raise ConfigError(
            f"{location} holds the checkpoints of a run with other settings: {'; '.join(changes)}. Set them back to go "
            "on with that run; for a new one give the output folder another name, or name another place in the setting "
            "checkpoints"
        )


def _show(value: JsonValue) -> str:
    return "none" if value is None else str(value)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
