"""Which ids are listed where the default model is missing or refused."""

import asyncio

import pytest

from serve.models.catalog import Catalog
from serve.models.model_plan import ModelEntry, ModelPlan


def entry(name: str, variant: str, **refused: str) -> ModelEntry:
    plan = ModelPlan(key=f"{name}@{variant}/1", folder="x", variant=variant, created=101)
    return ModelEntry(name=name, default=next(iter(refused), variant), plans={variant: plan}, refused=refused)


class Source:
    default = "main"
    aliases = ("whisper-1",)

    def __init__(self, *entries: ModelEntry) -> None:
        self.entries = {one.name: one for one in entries}

    def read(self) -> dict[str, ModelEntry]:
        return self.entries


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((entry("main", "fp32"), entry("other", "torch")), ["main", "main@fp32", "other", "other@torch", "whisper-1"]),
        ((entry("other", "torch"),), ["other", "other@torch"]),
        ((entry("main", "fp32", int8="it lost"),), ["main@fp32"]),
    ],
    ids=["there", "gone", "refused"],
)
def test_an_alias_is_listed_only_where_a_request_for_it_finds_the_default_model(entries, expected):
    async def run() -> list[str]:
        catalog = Catalog(None, Source(*entries))
        await catalog.refresh()
        return [model.id for model in catalog.listed()]

    assert asyncio.run(run()) == expected
