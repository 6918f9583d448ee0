"""A run goes on from checkpoints of its own alone, however many runs keep theirs in one place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sottovoce.checkpoints.run_state import RunState
from sottovoce.errors import ConfigError
from sottovoce.train import worker as loop
from sottovoce.train.config import _OPERATIONAL, TrainingConfig, check_settings, shaping_settings
from sottovoce.train.health.heartbeat import HeartbeatSender
from sottovoce.train.task import WorkerTask


def settings(*, computed_in: str = "fp32", **changes: object) -> dict[str, Any]:
    """Return the settings of a run as read back from its checkpoint."""
    config = TrainingConfig.model_validate({"base": "openai/whisper-small", "learning_rate": 1e-5} | changes)
    state = RunState(settings=shaping_settings(config, precision=computed_in))
    return RunState.model_validate_json(state.model_dump_json()).settings


def check_resumes(saved: dict[str, Any], now: dict[str, Any]) -> None:
    check_settings(saved, now, location="s3://b/m")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"learning_rate": 5e-5}, "learning_rate was 1e-05 and is now 5e-05"),
        ({"base": "micro"}, "base was openai/whisper-small and is now micro"),
        ({"method": "frozen_encoder"}, "method was full and is now frozen_encoder"),
        ({"num_epochs": 11}, "num_epochs was 10 and is now 11"),
        ({"max_steps": 50}, "max_steps was none and is now 50"),
        ({"spec_augment": {"num_mel_masks": 2}}, "spec_augment.num_mel_masks was 0 and is now 2"),
        ({"audio_context_s": (2, 10)}, r"audio_context_s was none and is now \[2.0, 10.0\]"),
        ({"computed_in": "fp16"}, "precision was fp32 and is now fp16"),
    ],
)
def test_another_runs_checkpoints_are_refused_with_what_differs_and_what_to_do(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=f"^s3://b/m holds .* other settings: {complaint}. Set them back .* name"):
        check_resumes(settings(), settings(**changes))


def test_all_that_differs_is_named() -> None:
    with pytest.raises(ConfigError, match=r"weight_decay was .*; seed was 0 and is now 1\."):
        check_resumes(settings(), settings(weight_decay=0.1, seed=1))


def test_the_same_settings_resume_and_so_does_a_checkpoint_without_settings() -> None:
    check_resumes(settings(), settings())
    check_resumes({}, settings())


def test_a_setting_that_is_newer_than_the_checkpoint_counts_as_its_default() -> None:
    older = {name: value for name, value in settings().items() if name not in ("dropout", "spec_augment.num_mel_masks")}
    check_resumes(older, settings())
    with pytest.raises(ConfigError, match=r"dropout was 0\.0 and is now 0\.1\. Set"):
        check_resumes(older, settings(dropout=0.1))
    with pytest.raises(ConfigError, match=r"spec_augment\.num_mel_masks was 0 and is now 2"):
        check_resumes(older, settings(spec_augment={"num_mel_masks": 2}))


def test_a_setting_that_is_gone_is_not_compared() -> None:
    check_resumes(settings() | {"magic": 3}, settings())


def test_how_a_run_is_carried_out_may_change() -> None:
    changed = {
        "num_workers": (1, 4),
        "accumulation_steps": 2,
        "checkpoints": "s3://elsewhere",
        "trackers": (),
        "max_failures": 9,
        "stuck_after_s": None,
        "save_every_steps": 7,
        "precision": "auto",  # which came to the same
        "device": "cpu",
    }
    check_resumes(settings(), settings(**changed))
    assert set(TrainingConfig.model_fields) >= _OPERATIONAL
    assert not _OPERATIONAL & set(settings()) - {"precision"}


def test_lora_settings_are_compared_only_if_an_adapter_is_trained() -> None:
    check_resumes(settings(lora={"rank": 4}), settings(lora={"rank": 8}))
    with pytest.raises(ConfigError, match=r"lora\.rank was 4 and is now 8"):
        check_resumes(settings(method="lora", lora={"rank": 4}), settings(method="lora", lora={"rank": 8}))


def test_a_worker_that_finds_another_runs_checkpoint_loads_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder holds no model: whoever came so far as to load one would fail otherwise."""
    finished = RunState(step=6, is_finished=True, settings=settings())
    (tmp_path / "run_state.json").write_text(finished.model_dump_json(), encoding="utf-8")

    @contextmanager
    def found(_store: object) -> Iterator[Path]:
        yield tmp_path

    monkeypatch.setattr(loop, "found_checkpoint", found)
    silent = HeartbeatSender(None, rank=0, num_ranks=1, stuck_after_s=None)
    monkeypatch.setattr(loop, "build_heartbeat", lambda _board, stuck_after_s: silent)
    stream: Any = SimpleNamespace(utterances=())
    training = TrainingConfig(
        base="openai/whisper-small", learning_rate=5e-5, stuck_after_s=None, checkpoints=str(tmp_path / "kept")
    )
    task = WorkerTask(
        training=training.model_dump(mode="json"), device="cpu", precision="fp32", stream=stream, validation=(),
        output=tmp_path / "b" / "m", board="none",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=f"^{tmp_path}/kept/m holds .* learning_rate was 1e-05 and is now 5e-05"):
        loop.run_worker(task)
