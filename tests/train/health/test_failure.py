from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch
from ray.exceptions import RayTaskError

from sottovoce.errors import (
    CheckpointError,
    RowsLostError,
    SottovoceError,
    StorageError,
    StuckWorkerError,
    TrainingMemoryError,
)
from sottovoce.schema import Example, Utterance
from sottovoce.train.batches import TrainBatch
from sottovoce.train.health import heartbeat
from sottovoce.train.health.failure import (
    EndAtOwnErrors,
    describe_batch,
    describe_examples,
    find_own_error,
    memory_explained,
    name_ids,
    raised_by_driver,
    raised_by_worker,
)
from sottovoce.train.health.heartbeat import Heartbeat, HeartbeatRegistry, Killed, StuckRank

STUCK = StuckRank(Heartbeat(1, "10.0.0.1", pid=17, step=40, phase="computing"), 31.0, is_silent=True)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> HeartbeatRegistry:
    """What stands behind the board of ``killed_before``."""
    monkeypatch.setattr(heartbeat.ray, "get", lambda value, timeout: value)
    return HeartbeatRegistry()


def killed_before(registry: HeartbeatRegistry, *stuck: StuckRank) -> Killed:
    """The last of them has just been killed."""
    board: Any = SimpleNamespace(has_newcomers=SimpleNamespace(remote=registry.has_newcomers))
    killed = Killed(board)
    killed.all.extend(stuck)
    registry.clear()
    return killed


def from_task(error: Exception) -> RayTaskError:
    """What Ray raises for an error of a task of Ray Data, which writes into its first argument."""
    error.args = (f"{error.args[0]}\nFailed to apply UDF transform after 1/1 attempts.", *error.args[1:])
    wrapped: RayTaskError = RayTaskError("read", "a long traceback", error).as_instanceof_cause()
    return wrapped


def test_an_error_of_ours_ends_the_run_as_a_kind_that_ray_does_not_retry() -> None:
    error = CheckpointError("runs/a", "it is damaged")
    with pytest.raises(ray.train.ControllerError) as caught:
        EndAtOwnErrors().after_exception(None, {0: RuntimeError("connection closed by peer"), 1: error})
    assert caught.value.controller_failure is error


def test_other_errors_are_left_to_ray() -> None:
    assert EndAtOwnErrors().after_exception(None, {0: RuntimeError("connection closed by peer")}) is None


def test_an_error_from_a_task_comes_out_as_it_was_raised() -> None:
    with pytest.raises(StorageError) as caught, raised_by_worker():
        raise from_task(StorageError("s3://speech", "timed out"))
    assert type(caught.value) is StorageError
    assert caught.value.args == ("s3://speech", "timed out")


def test_an_error_from_a_task_that_is_not_ours_stays_rays() -> None:
    with pytest.raises(RayTaskError, match="a long traceback"), raised_by_worker():
        raise from_task(KeyError("x"))


def test_the_driver_raises_the_very_error_without_rays_wrapper(registry: HeartbeatRegistry) -> None:
    error = RowsLostError("stream", 3, 2, "step 2 never came")
    with pytest.raises(RowsLostError) as caught, raised_by_driver(killed_before(registry)):
        raise ray.train.ControllerError(error)
    assert caught.value is error
    assert caught.value.__suppress_context__


def test_a_fault_of_rays_controller_stays_what_it_is(registry: HeartbeatRegistry) -> None:
    with pytest.raises(ray.train.ControllerError), raised_by_driver(killed_before(registry)):
        raise ray.train.ControllerError(RuntimeError("no room"))


def test_a_worker_stuck_once_too_often_is_the_error(registry: HeartbeatRegistry) -> None:
    failure = ray.train.WorkerGroupError("rank 0 lost its peer", {0: RuntimeError("connection closed by peer")})
    with pytest.raises(StuckWorkerError) as caught, raised_by_driver(killed_before(registry, STUCK, STUCK, STUCK)):
        raise failure
    assert caught.value.__cause__ is failure
    assert str(caught.value).startswith("rank 1 (process 17 on 10.0.0.1) has stood still for 31 s at step 40")
    assert "resumed 2 times already" in str(caught.value)


def test_a_worker_that_died_by_itself_is_rays_error(registry: HeartbeatRegistry) -> None:
    with pytest.raises(ray.train.WorkerGroupError), raised_by_driver(killed_before(registry)):
        raise ray.train.WorkerGroupError("rank 0 died", {0: RuntimeError("died")})


def test_a_stuck_worker_that_the_run_has_outlived_is_not_blamed_for_what_comes_later(
    registry: HeartbeatRegistry,
) -> None:
    killed = killed_before(registry, STUCK)
    registry.join(Heartbeat(1, "10.0.0.1", pid=18), num_ranks=2, actor="its successor")
    with pytest.raises(ray.train.WorkerGroupError), raised_by_driver(killed):
        raise ray.train.WorkerGroupError("rank 1 died", {1: RuntimeError("out of disk")})


def test_where_the_board_has_died_too_the_error_is_rays(
    registry: HeartbeatRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(_value: object, timeout: float) -> None:
        raise ray.exceptions.GetTimeoutError(f"nothing within {timeout} s")

    monkeypatch.setattr(heartbeat.ray, "get", get)
    with pytest.raises(ray.train.WorkerGroupError), raised_by_driver(killed_before(registry, STUCK)):
        raise ray.train.WorkerGroupError("the head died", {1: RuntimeError("died")})


def test_only_errors_of_ours_are_found() -> None:
    assert find_own_error(ValueError("no")) is None
    assert isinstance(find_own_error(TrainingMemoryError("a", "b", "c", "d")), SottovoceError)


def batch() -> TrainBatch:
    ids = tuple(f"u{number}" for number in range(10))
    return TrainBatch(torch.zeros(10, 80, 640), torch.zeros(10, 33), torch.zeros(10, 33), audio_s=60.0, ids=ids)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:132] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_whatever_is_short_of_memory_names_the_batch_and_what_to_change(error: Exception) -> None:
    with pytest.raises(TrainingMemoryError) as caught, memory_explained("training at step 3", lambda: "10 examples"):
        raise error
    sentence = str(caught.value)
    assert sentence.startswith(
        "out of memory while training at step 3: 10 examples; set training.gradient_checkpointing"
    )
    assert all(setting in sentence for setting in ("accumulation_steps", "gradient_checkpointing", "method lora"))
    assert "\n" not in sentence


def test_an_evaluation_short_of_memory_names_its_own_setting() -> None:
    with pytest.raises(TrainingMemoryError) as caught, memory_explained("evaluating", lambda: "it", evaluates=True):
        raise MemoryError
    assert "evaluating: it; lower training.evaluation_batch_size" in str(caught.value)


def test_other_errors_within_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_explained("training", lambda: "it"):
        raise RuntimeError("shapes do not match")
    inner = TrainingMemoryError("a", "b", "c", "d")
    with pytest.raises(TrainingMemoryError) as caught, memory_explained("training", lambda: "it"):
        raise inner
    assert caught.value is inner


def test_a_batch_is_described_by_size_and_first_ids() -> None:
    assert describe_batch(batch()) == (
        "10 examples padded to 6.4 s (u0, u1, u2, u3, u4, u5, u6, u7 and 2 more), features 10 x 80 x 640, "
        "labels 10 x 33"
    )
    assert name_ids(()) == "unnamed"


def test_examples_are_described_by_number_longest_and_ids() -> None:
    utterances = [Utterance(id=f"u{s}", audio="a.wav", duration_s=s, text="yes") for s in (1.5, 9.25)]
    examples = [Example(utterances=(one,)) for one in utterances]
    assert describe_examples(examples) == "2 examples, the longest of 9.2 s (u1.5, u9.25)"
