from pathlib import Path
from typing import Any

import pytest

from sottovoce import cluster
from sottovoce.audio.augmentation.augment import AugmentConfig
from sottovoce.checkpoints.run_state import Cursor, RunState
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import STATE_FILE
from sottovoce.config import Config
from sottovoce.data.dataset import SpeechStream
from sottovoce.errors import ConfigError, PrecisionUnavailableError
from sottovoce.model.adapter import LoraSettings
from sottovoce.schema import Example, Reject, Utterance
from sottovoce.train import resources
from sottovoce.train.config import CHANGEABLE, TrainingConfig
from sottovoce.train.record import read_last_state
from sottovoce.train.resources import resolve_device, resolve_device_here, resolve_precision
from sottovoce.train.run import CONFIG_FILE, build_run, check_durations, claim_output, summarize_data


class ExampleJob(Config):
    rate: float = 0.1


class TrainingJob(Config):
    training: TrainingConfig


def utterance(duration_s: float = 2.0, *, speaker: str | None = None) -> Utterance:
    return Utterance(id=f"u{duration_s}", audio="a.wav", duration_s=duration_s, text="yes", speaker=speaker)


def example(*durations_s: float) -> Example:
    return Example(utterances=tuple(utterance(duration_s) for duration_s in durations_s))


def stream_of(*examples: Example) -> SpeechStream:
    return SpeechStream(
        examples=examples, manifest_sizes=(len(examples),), weights=(1.0,), batch_size=1, batch_s=30.0,
        augment=AugmentConfig(), steps_per_task=1, tasks_per_worker=4, cpus_per_task=0.5, prefetch_batches=3,
    )  # fmt: skip


def test_auto_is_fp16_on_a_gpu_and_fp32_on_a_cpu() -> None:
    assert resolve_precision("auto", "cuda") == "fp16"
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"


def test_fp16_without_a_gpu_names_the_remedy() -> None:
    with pytest.raises(PrecisionUnavailableError, match="use precision=fp32 or auto"):
        resolve_precision("fp16", "cpu")


def test_a_named_device_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "join_cluster", lambda: pytest.fail("Ray was started"))
    assert resolve_device("cuda") == "cuda"
    assert resolve_device_here("cuda") == "cuda"


@pytest.mark.parametrize(("present", "expected"), [({"CPU": 8.0, "GPU": 2.0}, "cuda"), ({"CPU": 8.0}, "cpu")])
def test_auto_asks_the_cluster_that_will_train_and_not_this_machine(
    monkeypatch: pytest.MonkeyPatch, present: dict[str, float], expected: str
) -> None:
    joined: list[str] = []
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: bool(joined))
    monkeypatch.setattr(cluster.ray, "init", lambda: joined.append("cluster"))
    monkeypatch.setattr(cluster.os, "environ", {})
    monkeypatch.setattr(resources.ray, "cluster_resources", lambda: present)
    monkeypatch.setattr(resources.torch.cuda, "is_available", lambda: expected == "cpu")
    assert [resolve_device("auto"), resolve_device("auto")] == [expected, expected]
    assert joined == ["cluster"], "joined once"
    assert resolve_device_here("auto") != expected


def test_a_folder_accepts_its_own_settings_again_and_no_others(tmp_path: Path) -> None:
    claim_output(ExampleJob(), tmp_path)
    claim_output(ExampleJob(), tmp_path)
    with pytest.raises(ConfigError, match=r"other settings .*: rate was 0.1 and is now 0.2\. Set them back"):
        claim_output(ExampleJob(rate=0.2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train_whisper.yaml"]


def test_settings_that_errors_propose_may_change_in_the_same_folder(tmp_path: Path) -> None:
    def claim(**settings: Any) -> None:
        claim_output(TrainingJob(training=TrainingConfig(**settings)), tmp_path, may_change=CHANGEABLE)

    claim()
    claim(stuck_after_s=900.0, gradient_checkpointing=True, evaluation_batch_size=4, max_failures=9)
    assert "stuck_after_s: 900.0" in (tmp_path / "train_whisper.yaml").read_text(encoding="utf-8")
    for settings in ({"checkpoints": "s3://bucket/x"}, {"learning_rate": 1e-3}, {"lora": LoraSettings(rank=4)}):
        with pytest.raises(ConfigError, match=f"training.{next(iter(settings))}.* was .* and is now "):
            claim(stuck_after_s=900.0, **settings)


class Settings(Config):
    rate: float = 0.1
    momentum: float = 0.9


class GrownJob(Config):
    """The next release's ``ExampleJob``, with a new setting and a new group of settings."""

    rate: float = 0.1
    patience: int = 3
    optimizer: Settings = Settings(momentum=0.8)


def test_a_new_setting_counts_as_its_default_in_the_folder_of_an_older_release(tmp_path: Path) -> None:
    claim_output(ExampleJob(), tmp_path)
    with pytest.raises(ConfigError, match=r"patience was 3 and is now 4\. Set"):
        claim_output(GrownJob(patience=4), tmp_path)
    with pytest.raises(ConfigError, match=r"optimizer\.momentum was 0\.8 and is now 0\.9\. Set"):
        claim_output(GrownJob(optimizer=Settings(momentum=0.9)), tmp_path)
    claim_output(GrownJob(), tmp_path)
    assert "momentum: 0.8" in (tmp_path / "train_whisper.yaml").read_text(encoding="utf-8")


def test_a_setting_that_is_gone_is_still_named(tmp_path: Path) -> None:
    claim_output(GrownJob(), tmp_path)
    with pytest.raises(ConfigError, match=r"patience was 3 and is now none"):
        claim_output(ExampleJob(), tmp_path)


def test_a_run_whose_file_names_two_workers_goes_on_where_the_default_is_the_clusters(tmp_path: Path) -> None:
    claim_output(TrainingJob(training=TrainingConfig(num_workers=2)), tmp_path)
    claim_output(TrainingJob(training=TrainingConfig()), tmp_path, may_change=CHANGEABLE)
    assert "num_workers: null" in (tmp_path / CONFIG_FILE).read_text(encoding="utf-8")


def test_the_last_state_is_that_of_the_last_checkpoint_and_empty_before_the_first(tmp_path: Path) -> None:
    store = build_store(None, output=tmp_path)
    assert read_last_state(store) == RunState()
    cursor = Cursor(epoch=0, step_in_epoch=2, steps_per_epoch=5, num_microbatches=6, fingerprint="f")
    state = RunState(step=2, cursor=cursor)
    store.write({STATE_FILE: [state.model_dump_json().encode()]}, step=2, wer=None, keep_best=1)
    assert read_last_state(store) == state


def test_a_run_left_to_the_cluster_resumes_with_the_batches_of_its_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun on six GPUs, goes on with one, later with eight; a run of its own begins with all eight."""
    stream = stream_of(example(2.0))
    present = {"CPU": 16.0, "GPU": 1.0}
    monkeypatch.setattr(resources, "join_cluster", lambda: None)
    monkeypatch.setattr(resources.ray, "cluster_resources", lambda: present)
    settings = TrainingConfig(base=str(tiny_checkpoint), device="cuda")

    def workers(output: Path) -> tuple[object, int]:
        config = build_run(settings, train=stream, validation=[utterance()], output=output).config
        return config.num_workers, config.num_microbatches

    cursor = Cursor(epoch=0, step_in_epoch=2, steps_per_epoch=5, num_microbatches=6, fingerprint="f")
    state = RunState(step=2, cursor=cursor).model_dump_json().encode()
    build_store(None, output=tmp_path / "begun").write({STATE_FILE: [state]}, step=2, wer=None, keep_best=1)
    assert workers(tmp_path / "begun") == ((1, 6), 6)
    present["GPU"] = 8.0
    assert workers(tmp_path / "begun") == (6, 6)
    assert workers(tmp_path / "new") == (8, 8)


def test_no_validation_utterances_are_a_config_error_with_a_remedy(tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="validation_fraction above 0"):
        check_durations(TrainingConfig(base=str(tiny_checkpoint)), stream_of(example(2.0)), [])


def test_speech_longer_than_the_context_is_refused_before_training(tiny_checkpoint: Path) -> None:
    config = TrainingConfig(base=str(tiny_checkpoint))
    with pytest.raises(ConfigError, match=r"1 utterances, first u12.0, exceed the 10 s"):
        check_durations(config, stream_of(example(2.0), example(12.0)), [utterance()])
    longer = config.model_copy(update={"audio_context_s": (2.0, 15.0)})
    assert check_durations(longer, stream_of(example(12.0)), [utterance()]).max_s == 15.0


def test_a_validation_utterance_longer_than_the_context_is_named(tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"1 utterances, first u11.0, exceed .* up to 11 s"):
        check_durations(TrainingConfig(base=str(tiny_checkpoint)), stream_of(example(2.0)), [utterance(11.0)])


def test_packs_longer_than_the_context_name_the_setting_that_made_them(tiny_checkpoint: Path) -> None:
    config = TrainingConfig(base=str(tiny_checkpoint))
    with pytest.raises(ConfigError, match=r"1 examples, first u6.0, exceed the 10 s .* set pack_s to at most 10, or"):
        check_durations(config, stream_of(example(6.0, 6.5)), [utterance()])
    assert check_durations(config, stream_of(example(6.0, 4.0002)), [utterance()]).max_s == 10.0


def test_a_context_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match="shortest <= longest"):
        TrainingConfig(audio_context_s=(10.0, 2.0))


def test_data_is_summarized_with_rejects_by_reason() -> None:
    rejects = [Reject(id=f"r{i}", audio="r.wav", reason="silent", detail="") for i in range(2)]
    train = [utterance(1_800.0, speaker="a"), utterance(1_800.5, speaker="a")]
    stream = stream_of(*(Example(utterances=(one,)) for one in train))
    summary = summarize_data(stream, [utterance()], rejects)
    assert (summary.num_train, summary.num_speakers, summary.rejects) == (2, 1, {"silent": 2})
    assert (summary.tasks_per_worker, summary.prefetch_batches) == (4, 3)
    assert summary.train_hours == pytest.approx(1.0, abs=1e-3)
