"""What can be served under one name: its variants, which files each is loaded from, and which of them are refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

VARIANT_MARK = "@"  # in "name@int8"


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """One variant of one version of one model, and all that loading it takes."""

    key: str
    """Name, variant, version and digest: the id that Serve routes by. Other files have another key."""
    folder: str
    """Checkpoint folder, adapter folder or Hub id for ``torch``; else the export folder."""
    variant: str
    """torch, fp32 or int8."""
    base: str | None = None
    """Where the base model of an adapter is; None for a whole model."""
    assistant: str | None = None
    """Checkpoint of the smaller model that drafts for it (speculative decoding)."""
    created: int
    """Unix time at which its files were written or promoted."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One name and what is served under it."""

    name: str
    default: str
    """The variant that the bare name stands for."""
    plans: Mapping[str, ModelPlan]
    """By variant; those that can be served."""
    refused: Mapping[str, str]
    """By variant, why it is not served."""
    is_promoted: bool = False
    """Put under its name by a job, and so loaded before the first request wants it."""
    is_readable: bool = True
    """False where the record of a promoted name is damaged: what is served under the name stays as it is."""

    def plan(self, variant: str | None) -> ModelPlan | None:
        """Give a variant, or what the bare name stands for where None; None for one that cannot be served."""
        return self.plans.get(self.default if variant is None else variant)


class ModelSource(Protocol):
    """Where the gateway and the transcribers look for models; tests put a fake in its place."""

    @property
    def default(self) -> str:
        """The name whose model is loaded before the service is ready."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names of the default model."""

    def read(self) -> Mapping[str, ModelEntry]:
        """Give what can be served now, by name."""


def split_id(model_id: str) -> tuple[str, str | None]:
    """Take ``name@variant`` apart; without a variant it is None."""
    name, mark, variant = model_id.partition(VARIANT_MARK)
    return name, variant if mark else None
