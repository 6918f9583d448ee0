import os
from typing import Literal

import pytest
from pydantic import ValidationError

from sottovoce.config import load_config
from sottovoce.errors import ConfigError
from sottovoce.train import resources as scaling
from sottovoce.train.config import TrainingConfig
from sottovoce.train.health.heartbeat import longest_allowed_s
from sottovoce.train.resources import (
    build_failures,
    build_scaling,
    build_torch,
    check_room,
    set_up_environment,
    settle_workers,
)


def test_two_numbers_of_workers_make_a_run_elastic_and_one_does_not() -> None:
    elastic = build_scaling(TrainingConfig(num_workers=(1, 4), resize_interval_s=7.0), use_gpu=True)
    fixed = build_scaling(TrainingConfig(num_workers=3), use_gpu=False)
    assert (elastic.num_workers, elastic.elastic_resize_monitor_interval_s) == ((1, 4), 7.0)  # type: ignore[attr-defined]  # mypy sees version 1
    assert (elastic.resources_per_worker or {})["GPU"] == 1.0
    assert (fixed.num_workers, fixed.resources_per_worker) == (3, {"CPU": 0.5})


def test_only_deaths_without_notice_count_as_failures() -> None:
    failures = build_failures(TrainingConfig(max_failures=2))
    assert (failures.max_failures, failures.max_preemption_failures) == (2, -1)  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize("stuck_after_s", [1.0, 60.0, 300.0, 3_600.5])
def test_the_timeout_of_reductions_is_longer_than_a_worker_may_stand_still(stuck_after_s: float) -> None:
    timeout_s = build_torch(TrainingConfig(stuck_after_s=stuck_after_s)).timeout_s
    assert timeout_s >= max(600, longest_allowed_s(stuck_after_s) + 60)
    assert isinstance(timeout_s, int)


def test_the_timeout_of_reductions_is_hours_if_no_worker_is_watched() -> None:
    assert build_torch(TrainingConfig(stuck_after_s=None)).timeout_s >= 3_600


def test_what_the_user_has_set_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "9"})
    set_up_environment()
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "9"
    assert float(os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]) < 60.0


@pytest.mark.parametrize("num_workers", [0, (2, 1), (0, 2), (1, 2, 3), "two"])
def test_impossible_numbers_of_workers_are_refused(num_workers: object) -> None:
    with pytest.raises(ValidationError, match="num_workers"):
        TrainingConfig.model_validate({"num_workers": num_workers})


def test_the_batches_of_a_step_follow_from_the_most_workers() -> None:
    assert TrainingConfig(num_workers=3, accumulation_steps=2).num_microbatches == 6
    assert TrainingConfig(num_workers=(1, 3), accumulation_steps=2).num_microbatches == 6
    again = TrainingConfig.model_validate(TrainingConfig(num_workers=(1, 3)).model_dump(mode="json"))
    assert again.num_workers == (1, 3)


def test_the_command_line_takes_one_number_of_workers_or_two() -> None:
    assert load_config(TrainingConfig, ["--num-workers", "3"]).num_workers == 3
    assert load_config(TrainingConfig, ["--num-workers", "1", "3"]).num_workers == (1, 3)


def test_more_workers_than_there_is_room_for_are_refused_before_ray_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    with pytest.raises(
        ConfigError, match=r"no room for 2 workers \(2 GPU needed, 1 in the cluster\): lower training.num_"
    ):
        check_room(TrainingConfig(num_workers=2), "cuda")
    with pytest.raises(
        ConfigError, match=r"8 workers \(4 CPU needed, 2 in the cluster\).*name training.device \(cpu\)"
    ):
        check_room(TrainingConfig(num_workers=8), "cpu")
    check_room(TrainingConfig(num_workers=(1, 8)), "cuda")
    check_room(TrainingConfig(num_workers=4), "cpu")


def test_workers_that_leave_no_cpu_to_decode_with_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.ray, "cluster_resources", lambda: {"CPU": 2.0})
    config = TrainingConfig(num_workers=2, cpus_per_worker=1.0)
    with pytest.raises(ConfigError, match=r"no room for 2 workers and a decoding task \(2.25 CPU needed, 2 in the"):
        check_room(config, "cpu", cpus_per_task=0.25)
    check_room(config, "cpu")


@pytest.mark.parametrize(
    ("resources", "device", "expected"),
    [
        ({"CPU": 64.0, "GPU": 8.0}, "cuda", 8),
        ({"CPU": 8.0, "GPU": 1.0}, "cuda", 1),
        ({"CPU": 8.0}, "cuda", 1),  # GPU nodes that start on demand
        ({"CPU": 64.0}, "cpu", 2),
        ({"CPU": 2.0}, "cpu", 2),
        ({"CPU": 1.0}, "cpu", 1),
    ],
)
def test_by_default_a_run_has_the_workers_that_the_cluster_has_room_for(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], device: Literal["cpu", "cuda"], expected: int
) -> None:
    monkeypatch.setattr(scaling, "join_cluster", lambda: None)
    monkeypatch.setattr(scaling.ray, "cluster_resources", lambda: resources)
    assert settle_workers(TrainingConfig(), device, num_microbatches=None).num_workers == expected
    assert settle_workers(TrainingConfig(num_workers=5), device, num_microbatches=None).num_workers == 5


@pytest.mark.parametrize(
    ("num_gpus", "accumulation_steps", "expected"),
    [(4, 1, 4), (8, 1, 4), (3, 1, (3, 4)), (1, 1, (1, 4)), (2, 2, 2), (1, 2, (1, 2))],
)
def test_a_resumed_run_keeps_the_batches_of_its_steps_on_any_cluster(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, accumulation_steps: int, expected: object
) -> None:
    monkeypatch.setattr(scaling, "join_cluster", lambda: None)
    monkeypatch.setattr(scaling.ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": float(num_gpus)})
    config = settle_workers(TrainingConfig(accumulation_steps=accumulation_steps), "cuda", num_microbatches=4)
    assert config.num_workers == expected
    assert config.num_microbatches == 4
