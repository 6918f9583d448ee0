"""The settings a run's weights follow from, kept in its checkpoints and compared when it goes on.

A run finds its checkpoints by the name of its output folder. Where several runs share a place for checkpoints, two of
one name would otherwise take each other's weights for their own.
"""

from collections.abc import Collection, Iterator, Mapping
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
