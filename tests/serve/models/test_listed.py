"""Which ids are listed where the default model is missing or refused, and which files are named for them."""

import asyncio

import pytest

from serve.models.catalog import Catalog
from serve.models.file_digests import FileDigest
from serve.models.model_plan import ModelEntry, ModelPlan
from serve.models.served_model import ServedModel


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


class Replicas:
    """One replica, which loads a model once ``gate`` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.key = ""

    def options(self, *, multiplexed_model_id: str) -> "Replicas":
        self.key = multiplexed_model_id
        return self

    @property
    def describe(self) -> "Replicas":
        return self

    def remote(self) -> asyncio.Future[ServedModel]:
        return asyncio.ensure_future(self.load(self.key))

    def broadcast(self, _: str, key: str) -> "Replicas":
        self.key = key
        return self

    async def results_async(self, **_: object) -> list[ServedModel]:
        return [await self.load(self.key)]

    async def load(self, key: str) -> ServedModel:
        await self.gate.wait()
        return ServedModel(2.0, 10.0, {}, key=key, files=(FileDigest(f"of {key}", 3, "ab"),))


def test_the_files_that_answer_now_are_named_and_none_before_they_are_loaded():
    async def run() -> None:
        replicas, source = Replicas(), Source(entry("main", "int8"), entry("other", "torch"))
        catalog = Catalog(replicas, source)

        def listed() -> dict[str, list[str]]:
            return {model.id: [file.name for file in model.files] for model in catalog.listed()}

        async with catalog.running():
            loaded = ["of main@int8/1"]
            assert listed() == {
                "main": loaded, "main@int8": loaded, "other": [], "other@torch": [], "whisper-1": loaded
            }  # fmt: skip
            assert (catalog.describe("whisper-1").id, catalog.describe("whisper-1").variant) == ("whisper-1", "int8")
            replicas.gate.clear()
            plan = ModelPlan(key="main@int8/2", folder="x", variant="int8", created=102)
            source.entries["main"] = ModelEntry(name="main", default="int8", plans={"int8": plan}, refused={})
            await catalog.refresh()
            assert listed()["main"] == loaded, "the new version is being loaded"
            replicas.gate.set()
            await asyncio.sleep(0.05)
            assert listed()["main"] == listed()["whisper-1"] == ["of main@int8/2"]

    asyncio.run(run())
