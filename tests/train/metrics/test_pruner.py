"""A run waits for its pruner's answer after each evaluation; a run without a pruner never asks."""

from types import SimpleNamespace
from typing import Any

import pytest

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.train.metrics.pruner import Posted, Pruner, PrunerClient


def row(step: int) -> EvaluationRow:
    return EvaluationRow(
        step=step, epoch=1.0, training_loss=0.5, validation_loss=0.25, wer=0.5, wer_low=0.0, wer_high=1.0, cer=0.1,
        seconds=1.0,
    )  # fmt: skip


def client_of(pruner: Pruner, monkeypatch: pytest.MonkeyPatch, *, is_main_process: bool = True) -> PrunerClient:
    """A worker's end whose calls reach the pruner at once, and whose rank is the only one."""
    methods = {name: SimpleNamespace(remote=getattr(pruner, name)) for name in ("post", "read", "verdict")}
    monkeypatch.setattr(
        "sottovoce.train.metrics.pruner.ray.get_actor", lambda name, namespace: SimpleNamespace(**methods)
    )
    monkeypatch.setattr("sottovoce.train.metrics.pruner.ray.get", lambda value: value)
    monkeypatch.setattr("sottovoce.train.metrics.pruner.broadcast_object_list", lambda values: values)
    accelerator: Any = SimpleNamespace(is_main_process=is_main_process)
    return PrunerClient("trial", accelerator)


def test_there_is_no_verdict_until_a_step_is_allowed_or_the_run_is_stopped() -> None:
    pruner = Pruner()
    assert pruner.verdict(0) is None
    pruner.allow(10)
    pruner.allow(5)
    assert [pruner.verdict(step) for step in (0, 10, 11)] == [True, True, None]
    pruner.stop()
    assert [pruner.verdict(step) for step in (0, 11)] == [False, False]


def test_a_run_posts_its_evaluations_and_follows_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = Pruner()
    client = client_of(pruner, monkeypatch)
    pruner.allow(0)
    assert not client.stops([row(0)], is_last=False)
    pruner.stop()
    assert client.stops([row(0), row(10)], is_last=False)
    assert pruner.read() == Posted((row(0), row(10)), is_last=False)


def test_a_run_at_its_end_posts_and_asks_for_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = Pruner()
    assert client_of(pruner, monkeypatch).stops([row(0)], is_last=True)
    assert pruner.read().is_last


def test_a_run_waits_for_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = Pruner()
    client = client_of(pruner, monkeypatch)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            pruner.allow(0)

    monkeypatch.setattr("sottovoce.train.metrics.pruner.time.sleep", sleep)
    assert not client.stops([row(0)], is_last=False)
    assert len(waits) == 3


def test_only_the_first_rank_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = Pruner()
    assert not client_of(pruner, monkeypatch, is_main_process=False).stops([row(0)], is_last=False)
    assert pruner.read() == Posted()


def test_a_run_without_a_pruner_ends_by_itself() -> None:
    accelerator: Any = None
    client = PrunerClient(None, accelerator)
    assert not client.stops([row(0)], is_last=False)
    assert client.stops([row(0)], is_last=True)
