"""The variants that can be served under one name, the files of each, and the refused ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

VARIANT_MARK = "@"  # in "name@int8"


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """One variant of one version of a model, with everything needed to load it."""

    key: str
    """Name, variant, version and digest: the id that Serve routes by. Different files have a different key."""
    folder: str
    """Checkpoint folder, adapter folder or Hub id for ``torch``; else the export folder."""
    variant: str
    """torch, or the name of an export format such as int8."""
    base: str | None = None
    """Where the base model of an adapter is; None for a whole model."""
    assistant: str | None = None
    """Checkpoint of the assistant model (speculative decoding)."""
    created: int
    """Unix time of its promotion, or else of its files."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One name and what is served under it."""

    name: str
    default: str
    """The variant that the bare name selects."""
    plans: Mapping[str, ModelPlan]
    """The variants that can be served."""
    refused: Mapping[str, str]
    """The reason by refused variant."""
    is_promoted: bool = False
    """Promoted by a job, and therefore loaded before the first request."""
    is_readable: bool = True
    """False when the record of a promoted name is damaged: the model served under it stays."""

    def plan(self, variant: str | None) -> ModelPlan | None:
        """Return the plan of a variant, or of the bare name when None; None if it cannot be served."""
        return self.plans.get(self.default if variant is None else variant)


class ModelSource(Protocol):
    """The model repository as the gateway and the transcribers see it; tests pass a fake."""

    @property
    def default(self) -> str:
        """Name of the model that is loaded before the service is ready."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names of the default model."""

    def read(self) -> Mapping[str, ModelEntry]:
        """Return the entries that can be served now, by name."""


def split_id(model_id: str) -> tuple[str, str | None]:
    """Split ``name@variant`` into name and variant; the variant is None when absent."""
    name, mark, variant = model_id.partition(VARIANT_MARK)
    return name, variant if mark else None
