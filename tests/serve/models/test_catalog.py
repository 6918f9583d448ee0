"""The gateway's catalog: what is listed, found, refused, and how a new version takes over."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from serve.errors import ModelLoadError, ModelNotFoundError, ModelRefusedError
from serve.models.catalog import Catalog
from serve.models.model_plan import ModelEntry, ModelPlan
from serve.models.served_model import ServedModel


class Replicas:
    """Two transcriber replicas that load whatever is asked for; the keys in ``broken`` they cannot."""

    def __init__(self) -> None:
        self.described: list[str] = []
        self.prepared: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.num_replicas = 2
        self._key = ""

    def options(self, *, multiplexed_model_id: str) -> "Replicas":
        bound = Replicas.__new__(Replicas)
        bound.__dict__ = {**self.__dict__, "_key": multiplexed_model_id}
        return bound

    @property
    def describe(self) -> "Replicas":
        return self

    def remote(self) -> Any:
        self.described.append(self._key)
        return asyncio.ensure_future(self._load(self._key))

    def broadcast(self, method_name: str, key: str) -> Any:
        assert method_name == "prepare"
        self.prepared.append(key)
        replicas = self

        class Results:
            async def results_async(self, *, timeout_s=None, return_exceptions=False):
                loads = [replicas._load(key) for _ in range(replicas.num_replicas)]
                return await asyncio.gather(*loads, return_exceptions=return_exceptions)

        return Results()

    async def _load(self, key: str) -> ServedModel:
        await self.gate.wait()
        if key in self.broken:
            raise self.broken[key]
        return ServedModel(2.0, 10.0, {"en": "english"}, key=key)


class Source:
    default = "main"
    aliases = ("whisper-1",)

    def __init__(self) -> None:
        self.entries: dict[str, ModelEntry] = {}
        self.put("main", 1, ("int8", "fp32"))
        self.put("org/small", 1, ("torch",))

    def put(self, name: str, version: int, variants: tuple[str, ...], **refused: str) -> None:
        plans = {
            variant: ModelPlan(key=f"{name}@{variant}/{version}", folder="x", variant=variant, created=100 + version)
            for variant in variants
        }
        self.entries[name] = ModelEntry(
            name=name, default=[*variants, *refused][0], plans=plans, refused=refused, is_promoted=version > 1
        )

    def read(self) -> Mapping[str, ModelEntry]:
        return dict(self.entries)


async def settled(catalog: Catalog) -> None:
    """Look at the folder once, and let what follows from it happen."""
    await catalog.refresh()
    for _ in range(10):
        await asyncio.sleep(0)


def test_names_variants_and_aliases_are_listed_the_default_first():
    async def run() -> list[tuple[str, int]]:
        catalog = Catalog(Replicas(), Source())
        async with catalog.running():
            return [(model.id, model.created) for model in catalog.listed()]

    assert asyncio.run(run()) == [
        ("main", 101),
        ("main@int8", 101),
        ("main@fp32", 101),
        ("org/small", 101),
        ("org/small@torch", 101),
        ("whisper-1", 101),
    ]


def test_an_id_is_found_with_its_variant_by_its_alias_and_only_once_loaded():
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            assert (await catalog.find("main")).key == "main@int8/1"
            assert (await catalog.find("whisper-1")).key == "main@int8/1"
            assert (await catalog.find("whisper-1@fp32")).key == "main@fp32/1"
            assert catalog.describe("org/small").created == 101
            replicas.gate.clear()
            both = asyncio.gather(catalog.find("org/small"), catalog.find("org/small"))
            await asyncio.sleep(0)
            replicas.gate.set()
            assert {one.key for one in await both} == {"org/small@torch/1"}
        assert replicas.described == ["main@int8/1", "main@fp32/1", "org/small@torch/1"]

    asyncio.run(run())


def test_what_is_not_there_is_not_found_and_a_refused_variant_says_why():
    async def run() -> None:
        source = Source()
        source.put("main", 1, ("fp32",), int8="variant int8 scores WER 0.5 against 0.1")
        catalog = Catalog(Replicas(), source)
        async with catalog.running():
            for model in ("gpt-9", "main@torch", "main@", "whisper-1@torch", "org"):
                with pytest.raises(ModelNotFoundError, match="does not exist") as caught:
                    await catalog.find(model)
                assert caught.value.args[0] == model
            with pytest.raises(ModelRefusedError, match="scores WER"):
                await catalog.find("main@int8")
            with pytest.raises(ModelRefusedError):
                catalog.describe("whisper-1@int8")
            assert "main@int8" not in [model.id for model in catalog.listed()]

    asyncio.run(run())


def test_a_model_refused_in_every_variant_is_not_listed_and_says_why():
    async def run() -> None:
        source = Source()
        source.put("bad", 1, (), int8="variant int8 scores WER 0.5")
        catalog = Catalog(Replicas(), source)
        async with catalog.running():
            assert not [model for model in catalog.listed() if model.id.startswith("bad")]
            with pytest.raises(ModelRefusedError, match="scores WER"):
                await catalog.find("bad")

    asyncio.run(run())


def test_without_a_default_model_nothing_starts():
    source = Source()
    del source.entries["main"]

    async def run() -> None:
        async with Catalog(Replicas(), source).running():
            pass

    with pytest.raises(ModelNotFoundError):
        asyncio.run(run())


def test_the_old_version_answers_until_every_replica_has_the_new_one():
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            replicas.gate.clear()
            source.put("main", 2, ("torch",))
            await settled(catalog)
            assert replicas.prepared == ["main@torch/2"]
            assert (await catalog.find("main")).key == "main@int8/1"
            await settled(catalog)
            assert replicas.prepared == ["main@torch/2"], "it was asked for once"
            replicas.gate.set()
            await settled(catalog)
            assert (await catalog.find("main")).key == "main@torch/2"
            assert (await catalog.find("whisper-1")).key == "main@torch/2"
            assert replicas.described == ["main@int8/1"], "nobody waited for the new version"

    asyncio.run(run())


def test_a_newly_promoted_name_is_loaded_before_anyone_asks_a_plain_folder_is_not():
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            source.put("promoted", 2, ("int8",))
            source.put("folder", 1, ("int8",))
            await settled(catalog)
            assert replicas.prepared == ["promoted@int8/2"]
            await catalog.find("promoted")
            assert replicas.described == ["main@int8/1"]

    asyncio.run(run())


def test_a_version_that_cannot_be_loaded_leaves_the_one_before_it_in_place(caplog):
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            replicas.broken["main@int8/2"] = ModelLoadError("main", "damaged")
            source.put("main", 2, ("int8",))
            for _ in range(3):
                await settled(catalog)
            assert (await catalog.find("main")).key == "main@int8/1"
            assert replicas.prepared == ["main@int8/2"], "damaged files are tried once"
            source.put("main", 3, ("int8",))
            await settled(catalog)
            assert (await catalog.find("main")).key == "main@int8/3"

    asyncio.run(run())
    assert "cannot be loaded" in caplog.text


def test_replicas_that_died_meanwhile_are_asked_again():
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            replicas.num_replicas = 0
            source.put("main", 2, ("int8",))
            await settled(catalog)
            replicas.num_replicas = 1
            await settled(catalog)
            assert (await catalog.find("main")).key == "main@int8/2"
            assert len(replicas.prepared) == 2

    asyncio.run(run())


def test_a_version_that_a_replica_does_not_see_yet_is_tried_again(caplog):
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            replicas.broken["main@int8/2"] = ModelNotFoundError("main@int8/2")
            source.put("main", 2, ("int8",))
            for _ in range(3):
                await settled(catalog)
            assert (await catalog.find("main")).key == "main@int8/1"
            del replicas.broken["main@int8/2"]
            await settled(catalog)
            assert (await catalog.find("main")).key == "main@int8/2"

    asyncio.run(run())
    assert caplog.text.count("retrying") == 1, "the folder is looked at twice a second"


def test_a_newly_promoted_name_whose_replicas_died_is_tried_again():
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            replicas.num_replicas = 0
            source.put("promoted", 2, ("int8",))
            await settled(catalog)
            replicas.num_replicas = 2
            for _ in range(2):
                await settled(catalog)
            assert replicas.prepared == ["promoted@int8/2"] * 2
            await catalog.find("promoted")
            assert replicas.described == ["main@int8/1"], "nobody waited for it"

    asyncio.run(run())


def test_a_model_promoted_before_the_start_is_loaded_when_it_is_asked_for():
    async def run() -> None:
        replicas, source = Replicas(), Source()
        source.put("promoted", 2, ("int8",))
        catalog = Catalog(replicas, source)
        async with catalog.running():
            await settled(catalog)
            assert replicas.prepared == []

    asyncio.run(run())


def test_a_promoted_model_refused_in_its_default_variant_ends_nothing():
    async def run() -> None:
        replicas, source = Replicas(), Source()
        catalog = Catalog(replicas, source)
        async with catalog.running():
            source.put("bad", 2, (), int8="variant int8 scores WER 0.5")
            source.put("promoted", 2, ("int8",))
            await settled(catalog)
            assert replicas.prepared == ["promoted@int8/2"]
            with pytest.raises(ModelRefusedError):
                await catalog.find("bad")

    asyncio.run(run())


def test_a_name_whose_record_is_damaged_stays_what_it_was():
    async def run() -> None:
        source = Source()
        catalog = Catalog(Replicas(), source)
        unreadable = ModelEntry(name="main", default="torch", plans={}, refused={"torch": "damaged"}, is_readable=False)
        async with catalog.running():
            source.entries |= {"main": unreadable, "new": replace(unreadable, name="new")}
            await settled(catalog)
            assert (await catalog.find("main")).key == "main@int8/1"
            assert (await catalog.find("main@fp32")).key == "main@fp32/1"
            assert "main" in [model.id for model in catalog.listed()]
            with pytest.raises(ModelNotFoundError, match="does not exist"):
                await catalog.find("new")
            source.put("main", 2, ("int8",))
            await settled(catalog)
            assert (await catalog.find("main")).key == "main@int8/2"

    asyncio.run(run())


def test_a_default_model_that_is_gone_is_no_mistake_of_who_asks_whether_the_service_is_ready():
    async def run() -> None:
        source = Source()
        catalog = Catalog(Replicas(), source)
        async with catalog.running():
            assert (await catalog.find_default()).key == "main@int8/1"
            del source.entries["main"]
            await settled(catalog)
            with pytest.raises(ModelLoadError, match="it is gone; promote a model"):
                await catalog.find_default()

    asyncio.run(run())


def test_a_model_that_vanishes_is_not_found_any_more():
    async def run() -> None:
        source = Source()
        catalog = Catalog(Replicas(), source)
        async with catalog.running():
            await catalog.find("org/small")
            del source.entries["org/small"]
            await settled(catalog)
            with pytest.raises(ModelNotFoundError):
                await catalog.find("org/small")

    asyncio.run(run())


@pytest.mark.parametrize("fault", [OSError("stale handle"), KeyError("int8")], ids=lambda fault: type(fault).__name__)
def test_an_unreadable_folder_changes_nothing_is_told_once_and_ends_nothing(caplog, monkeypatch, fault):
    monkeypatch.setattr("serve.models.catalog._POLL_S", 0.001)

    async def run() -> None:
        source = Source()
        catalog = Catalog(Replicas(), source)
        async with catalog.running():
            looks: list[Exception] = []

            def fail() -> Mapping[str, ModelEntry]:
                looks.append(fault)
                raise fault

            source.read = fail  # type: ignore[method-assign]
            while len(looks) < 3:
                await asyncio.sleep(0.001)
            assert (await catalog.find("main")).key == "main@int8/1"
            del source.read
            source.put("main", 2, ("int8",))
            while (await catalog.find("main")).key != "main@int8/2":
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), timeout=60.0))
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1


def test_one_who_gives_up_does_not_stop_a_load_for_the_others():
    async def run() -> None:
        replicas = Replicas()
        catalog = Catalog(replicas, Source())
        async with catalog.running():
            replicas.gate.clear()
            first, second = (asyncio.create_task(catalog.find("org/small")) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            replicas.gate.set()
            assert (await second).key == "org/small@torch/1"
            assert replicas.described.count("org/small@torch/1") == 1

    asyncio.run(run())
