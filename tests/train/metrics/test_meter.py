import time
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator

from sottovoce.train.metrics.meter import Meter

PAUSE_S = 0.05


def meter(*, step_s: float = 0.0, data_wait_s: float = 0.0) -> Meter:
    return Meter(Accelerator(cpu=True), audio_s=0.0, seconds=step_s, step_s=step_s, data_wait_s=data_wait_s)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("sottovoce.train.metrics.meter.time.monotonic", lambda: self.now)


def test_the_wait_for_a_batch_is_counted_and_the_work_on_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, counted = Clock(monkeypatch), meter()

    def slow_batches() -> Iterator[int]:
        for number in range(3):
            clock.now += 1.5
            yield number

    batches = slow_batches()
    counted.start()
    assert [counted.take(batches) for _ in range(2)] == [0, 1]
    clock.now += 1.0
    assert (counted.data_wait_s, counted.step_s) == pytest.approx((3.0, 4.0))
    assert counted.read()["data_wait"] == pytest.approx(0.75)
    assert counted.longest_data_wait_s() == pytest.approx(3.0)


def test_evaluations_and_checkpoints_are_not_in_the_steps_time() -> None:
    counted = meter(step_s=7.0, data_wait_s=1.0)
    assert counted.step_s == 7.0
    counted.start()
    with counted.stopped():
        before = counted.step_s
        time.sleep(PAUSE_S)
        assert counted.step_s == before
    time.sleep(PAUSE_S)
    assert counted.step_s >= before + PAUSE_S
    assert counted.data_wait_s == 1.0


def test_each_read_covers_the_steps_since_the_last_read_and_a_row_those_since_the_last_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, counted = Clock(monkeypatch), meter()
    counted.start()

    def train(num_steps: int, *, waited_s: float, step_s: float, loss: float) -> dict[str, float]:
        def batch() -> Iterator[None]:
            clock.now += waited_s
            yield None

        for _ in range(num_steps):
            counted.take(batch())
            clock.now += step_s - waited_s
            counted.add(torch.tensor(loss), torch.tensor(1.0), audio_s=6.0)
        return counted.read()

    slow = train(4, waited_s=1.5, step_s=2.0, loss=3.0)
    with counted.stopped():
        clock.now += 100.0  # an evaluation
    fast = train(10, waited_s=0.0, step_s=0.5, loss=1.0)
    names = ("data_wait", "steps_per_s", "audio_s_per_s", "loss")
    assert [slow[name] for name in names] == pytest.approx([0.75, 0.5, 3.0, 3.0])
    assert [fast[name] for name in names] == pytest.approx([0.0, 2.0, 12.0, 1.0])
    assert counted.own["data_wait"] == 0.0
    assert counted.take_mean_loss() == pytest.approx((4 * 3.0 + 10 * 1.0) / 14)
    assert (counted.data_wait_s, counted.step_s, counted.audio_s) == pytest.approx((6.0, 13.0, 84.0))


def test_throughput_counts_steps_and_speech_and_the_loss_is_per_label() -> None:
    counted = meter()
    counted.start()
    for _ in range(2):
        counted.add(torch.tensor(6.0), torch.tensor(3.0), audio_s=4.0)
    time.sleep(PAUSE_S)
    values = counted.read()
    assert values["loss"] == pytest.approx(2.0)
    assert values["audio_s_per_s"] == pytest.approx(4.0 * values["steps_per_s"])
    assert 0.0 < values["steps_per_s"] <= 2 / PAUSE_S
    assert counted.take_mean_loss() == pytest.approx(2.0)
    assert counted.take_mean_loss() == 0.0


def test_a_resumed_run_continues_the_loss_since_its_last_row() -> None:
    first = meter()
    first.add(torch.tensor(6.0), torch.tensor(3.0), audio_s=4.0)
    first.collect()
    second = Meter(Accelerator(cpu=True), audio_s=first.audio_s, seconds=0.0, loss_since_row=first.loss_since_row)
    second.add(torch.tensor(4.0), torch.tensor(1.0), audio_s=1.5)
    assert second.take_mean_loss() == pytest.approx(10.0 / 4.0)
    assert second.audio_s == 5.5
    assert second.read()["loss"] == pytest.approx(4.0), "the pace and loss of a log are this start's own"


def test_memory_is_the_processes_and_the_loss_scale_is_one_without_a_scaler() -> None:
    counted = meter()
    counted.start()
    values = counted.read()
    assert 0.05 < values["memory_gib"] < 1024.0
    assert values["loss_scale"] == 1.0
    assert counted.own == {"data_wait": 0.0, "memory_gib": pytest.approx(values["memory_gib"])}


def test_the_loss_scale_is_that_of_the_gradient_scaler() -> None:
    counted = meter()
    counted._accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    counted.start()
    assert counted.read()["loss_scale"] == 1024.0
