"""Room for models: the least recently used goes first, nothing goes in the middle of a call."""

import asyncio
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import ray.serve.multiplex
from ray.serve.multiplex import _ModelMultiplexWrapper

from serve.errors import ModelLoadError, ModelNotFoundError
from serve.models.loaded import ModelRoom
from serve.models.loading import Footprint, LoadedModel
from serve.models.model_plan import ModelPlan
from sottovoce.errors import CheckpointError


class FakeRepository:
    """Every key is a model; its size stands in its name, as in ``name-30`` or, with a base of 50, ``name-5-base``."""

    def plan(self, key: str) -> ModelPlan:
        if key == "gone":
            raise ModelNotFoundError(key)
        return ModelPlan(key=key, folder=key, variant="torch", created=1)


class FakeLoader:
    def __init__(self) -> None:
        self.unloaded: list[str] = []

    def measure(self, plan: ModelPlan) -> Footprint:
        _, size, *more = plan.key.split("-")
        if more == ["gpu"]:
            return Footprint(int(size), device="cuda")
        return Footprint(int(size), *more, **({"base_bytes": 50} if more else {}))

    def load(self, plan: ModelPlan, footprint: Footprint) -> LoadedModel:
        if plan.key.startswith("broken"):
            raise CheckpointError(plan.folder, "damaged")
        return LoadedModel(plan, None, footprint)

    def unload(self, model: LoadedModel) -> None:
        self.unloaded.append(model.plan.key)

    def free_memory(self) -> None:
        """Nothing to free."""


class FakeList:
    """Serve's list, as its multiplexing keeps it."""

    def __init__(self) -> None:
        self.models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._push_multiplexed_replica_info = False

    async def unload_model_lru(self) -> None:
        self.models.popitem(last=False)


class Replica:
    """A room of 100 bytes, and the list of what is in it."""

    def __init__(self) -> None:
        self.loader, self.loaded, self.engine = FakeLoader(), FakeList(), asyncio.Lock()
        self.room = ModelRoom(FakeRepository(), self.loader, max_bytes={"cpu": 100, "cuda": 50})

    async def load(self, *keys: str) -> list[str]:
        for key in keys:
            if key in self.loaded.models:
                self.loaded.models.move_to_end(key)
            else:
                self.loaded.models[key] = await self.room.load(key, self.loaded, self.engine)
        return list(self.loaded.models)


def loaded_after(*keys: str) -> list[str]:
    async def run() -> list[str]:
        return await Replica().load(*keys)

    return asyncio.run(run())


def test_models_stay_while_there_is_room():
    assert loaded_after("a-30", "b-30", "c-40") == ["a-30", "b-30", "c-40"]


def test_the_least_recently_used_goes_first_and_no_more_than_needed():
    assert loaded_after("a-30", "b-30", "c-40", "a-30", "d-20") == ["c-40", "a-30", "d-20"]
    assert loaded_after("a-30", "b-30", "c-40", "d-60") == ["c-40", "d-60"]


def test_a_base_is_counted_once_and_stays_with_the_last_of_its_adapters():
    assert loaded_after("a-10-base", "b-10-base", "c-10-base") == ["a-10-base", "b-10-base", "c-10-base"]
    assert loaded_after("a-10-base", "b-10-base", "c-40") == ["b-10-base", "c-40"]
    assert loaded_after("a-10-base", "b-10-base", "c-90") == ["c-90"]


def test_each_device_has_room_of_its_own():
    assert loaded_after("a-60", "b-40-gpu", "c-40", "d-20-gpu") == ["a-60", "c-40", "d-20-gpu"]
    with pytest.raises(ModelLoadError, match="needs 51 bytes, and max_gpu_bytes is 50"):
        loaded_after("a-51-gpu")


def test_a_model_larger_than_the_whole_room_is_refused_and_drives_nobody_out():
    async def run() -> list[str]:
        replica = Replica()
        await replica.load("a-30")
        with pytest.raises(ModelLoadError, match="needs 101 bytes, and max_model_bytes is 100"):
            await replica.load("b-101")
        return list(replica.loaded.models)

    assert asyncio.run(run()) == ["a-30"]


def test_damaged_files_and_names_that_are_gone_are_told_apart():
    with pytest.raises(ModelLoadError, match="damaged"):
        loaded_after("broken-1")
    with pytest.raises(ModelNotFoundError):
        loaded_after("gone")


def test_a_model_is_dropped_only_after_the_call_that_is_running():
    async def run() -> tuple[list[str], list[str]]:
        replica = Replica()
        await replica.load("a-60")
        async with replica.engine:
            loading = asyncio.create_task(replica.load("b-60"))
            await asyncio.sleep(0.05)
            during = list(replica.loaded.models)
        await loading
        assert replica.loader.unloaded == ["a-60"]
        return during, list(replica.loaded.models)

    assert asyncio.run(run()) == (["a-60"], ["b-60"])


def test_one_model_is_dropped_by_its_key_between_two_calls_and_a_second_time_nothing_happens():
    async def run() -> tuple[list[str], bool]:
        replica = Replica()
        await replica.load("a-30", "b-30", "c-30")
        async with replica.engine:
            dropping = asyncio.create_task(replica.room.unload("b-30", loaded=replica.loaded, engine=replica.engine))
            await asyncio.sleep(0.01)
            assert list(replica.loaded.models) == ["a-30", "b-30", "c-30"]
        await dropping
        await replica.room.unload("b-30", loaded=replica.loaded, engine=replica.engine)
        assert replica.loader.unloaded == ["b-30"]
        return list(replica.loaded.models), replica.loaded._push_multiplexed_replica_info

    assert asyncio.run(run()) == (["a-30", "c-30"], True)


def test_the_controller_is_told_of_what_was_dropped_and_of_nothing_else():
    async def run() -> tuple[bool, bool]:
        replica = Replica()
        await replica.load("a-60", "b-40")
        before = replica.loaded._push_multiplexed_replica_info
        await replica.load("c-60")
        return before, replica.loaded._push_multiplexed_replica_info

    assert asyncio.run(run()) == (False, True)


@pytest.mark.parametrize("is_told", [True, False])
def test_ray_still_reads_the_flag_we_set(monkeypatch, is_told):
    """Its list needs a replica to be made in; what reads the flag does not."""
    told: list[list[str]] = []
    client = SimpleNamespace(record_request_routing_info=lambda info: told.append(info.multiplexed_model_ids))
    monkeypatch.setattr(ray.serve.multiplex, "_get_global_client", lambda: client)
    ignored = SimpleNamespace(set=lambda *_, **__: None)
    ray_list = _ModelMultiplexWrapper.__new__(_ModelMultiplexWrapper)
    ray_list.models, ray_list._model_load_tasks, ray_list._replica_id = OrderedDict(kept=None), set(), None
    ray_list.num_models_gauge = ray_list.registered_model_gauge = ignored
    ray_list._push_multiplexed_replica_info = is_told
    ray_list._push_model_ids_info()
    assert told == ([["kept"]] if is_told else [])
