"""Superseded releases leave a replica's memory once they are idle, and nothing else does."""

import asyncio
from collections.abc import Callable

import pytest

from serve.models.model_plan import ModelEntry, ModelPlan
from serve.models.superseded import SupersededReleases, find_superseded


def entry(name: str, version: int, *variants: str, is_readable: bool = True) -> ModelEntry:
    plans = {
        variant: ModelPlan(key=f"{name}@{variant}/{version}-ab", folder="x", variant=variant, created=1)
        for variant in variants
    }
    return ModelEntry(name=name, default=[*variants, "torch"][0], plans=plans, refused={}, is_readable=is_readable)


@pytest.mark.parametrize(
    ("loaded", "current", "expected"),
    [
        (["main@int8/1-ab", "main@int8/2-ab"], entry("main", 2, "int8"), ["main@int8/1-ab"]),
        (["main@int8/1-ab", "main@int8/2-ab"], entry("main", 1, "int8"), ["main@int8/2-ab"]),
        (["main@int8/1-ab"], entry("main", 2, "int8"), []),
        (["main@int8/1-ab", "main@torch/2-ab"], entry("main", 2, "torch"), ["main@int8/1-ab"]),
        (["main@int8/1-ab", "main@torch/2-ab"], entry("main", 2, "torch", "int8"), []),
        (["main@int8/2-ab", "main@fp32/2-ab", "other@int8/1-ab"], entry("main", 2, "int8", "fp32"), []),
        (["main@int8/1-ab", "main@int8/2-ab"], entry("main", 2, is_readable=False), []),
    ],
    ids=["promoted", "rolled back", "not loaded yet", "variant gone", "variant not loaded", "in use", "damaged"],
)
def test_a_release_is_superseded_once_its_successor_is_loaded_beside_it(loaded, current, expected):
    assert list(find_superseded(loaded, {"main": current})) == expected


class Replica:
    """A replica's list of keys, and a repository that can be read or not."""

    default = "main"
    aliases = ()

    def __init__(self, *keys: str) -> None:
        self.keys = [*keys]
        self.is_readable = True

    def read(self) -> dict[str, ModelEntry]:
        if not self.is_readable:
            raise OSError("no storage")
        return {"main": entry("main", 2, "int8")}

    async def unload(self, key: str) -> None:
        self.keys.remove(key)


def run(replica: Replica, body: Callable[[SupersededReleases], object], *, idle_s: float) -> list[str]:
    async def main() -> list[str]:
        releases = SupersededReleases(replica, loaded=lambda: replica.keys, unload=replica.unload, idle_s=idle_s)
        for key in replica.keys:
            releases.note_use(key)
        releases.look()
        for _ in range(40):
            body(releases)
            await asyncio.sleep(0.01)
        return replica.keys

    return asyncio.run(main())


def test_a_superseded_release_leaves_memory_once_it_is_idle():
    replica = Replica("main@int8/1-ab", "other@int8/1-ab", "main@int8/2-ab")
    assert run(replica, lambda _: None, idle_s=0.05) == ["other@int8/1-ab", "main@int8/2-ab"]


def test_a_superseded_release_stays_while_requests_use_it():
    replica = Replica("main@int8/1-ab", "main@int8/2-ab")
    kept = run(replica, lambda releases: releases.note_use("main@int8/1-ab"), idle_s=0.2)
    assert kept == ["main@int8/1-ab", "main@int8/2-ab"]


def test_nothing_is_dropped_while_the_repository_cannot_be_read(caplog):
    replica = Replica("main@int8/1-ab", "main@int8/2-ab")
    replica.is_readable = False
    assert len(run(replica, lambda _: None, idle_s=0.01)) == 2
    assert "superseded releases stay in memory" in caplog.text
