from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.errors import CheckpointError, ConfigError, FourBitUnavailableError
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.model.context import TrimmedWhisper
from sottovoce.publish.model_card import build_model_card
from sottovoce.report.diagnosis.finding import gentler_method
from sottovoce.schema import Example, Utterance
from sottovoce.train import run as driver
from sottovoce.train.config import TrainingConfig
from sottovoce.train.methods import METHODS, KnownRate, Method, check_method, describe_weights
from sottovoce.train.run import build_run, describe_run
from sottovoce.train.worker_model import count_parameters, count_weights, load_base, load_start, set_up

UTTERANCES = [Utterance(id="u", audio="a.wav", duration_s=1.0, text="yes")]


def config_for(base: Path, method: str, **lora: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"base": str(base), "method": method, "lora": {"rank": 2} | lora})


def test_the_setting_accepts_the_names_of_the_table_and_no_others() -> None:
    assert get_args(TrainingConfig.model_fields["method"].annotation) == tuple(METHODS)
    with pytest.raises(ValueError, match="method"):
        TrainingConfig(method="all")


def test_qlora_without_a_gpu_names_the_remedy_before_anything_starts(tiny_checkpoint: Path) -> None:
    with pytest.raises(FourBitUnavailableError, match=r"needs a CUDA device, .* use method=lora"):
        check_method("qlora", base=str(tiny_checkpoint), has_gpu=False)


def test_qlora_without_bitsandbytes_names_the_package(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sottovoce.model.frozen_base.find_spec", lambda _name: None)
    with pytest.raises(FourBitUnavailableError, match="needs the package bitsandbytes"):
        check_method("qlora", base=str(tiny_checkpoint), has_gpu=True)
    monkeypatch.setattr("sottovoce.model.frozen_base.find_spec", lambda name: name)
    check_method("qlora", base=str(tiny_checkpoint), has_gpu=True)


def test_an_adapter_for_an_adapter_is_refused_before_anything_starts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(load_base(config_for(tiny_checkpoint, "lora"), UTTERANCES), tmp_path)
    with pytest.raises(CheckpointError, match="itself an adapter; merge it first"):
        check_method("lora", base=str(tmp_path), has_gpu=False)
    check_method("full", base=str(tmp_path), has_gpu=False)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "qlora"])
def test_the_count_without_memory_is_that_of_the_model_a_worker_trains(tiny_checkpoint: Path, method: str) -> None:
    config = config_for(tiny_checkpoint, method, token_rows=True)
    checkpoint = load_base(config, UTTERANCES)
    set_up(checkpoint, config)
    count = count_parameters(config, UTTERANCES)
    assert count.trained == sum(weight.numel() for weight in checkpoint.model.parameters() if weight.requires_grad)
    assert count.base == sum(weight.numel() for weight in load_checkpoint(tiny_checkpoint).model.parameters())
    assert 0 < count.trained < count.base
    assert count_weights(str(tiny_checkpoint)) == count.base


def test_no_embedding_rows_are_trained_unless_asked_for(tiny_checkpoint: Path) -> None:
    with_rows, without = (
        count_parameters(config_for(tiny_checkpoint, "lora", token_rows=rows), UTTERANCES).trained
        for rows in (True, False)
    )
    # start, language, task, no-timestamps, end and the one token of " yes", each a row of 32
    assert with_rows - without == 6 * 32


def test_the_card_says_how_each_method_holds_the_weights() -> None:
    assert describe_weights("full", precision="fp16") == "weights in fp32"
    assert describe_weights("lora", precision="bf16").startswith("the base's matrices in bf16")
    assert describe_weights("lora", precision="fp32") == "weights in fp32"
    assert "4 bits (NF4)" in describe_weights("qlora", precision="fp16")


def _train_norms(whisper: TrimmedWhisper) -> None:
    whisper.requires_grad_(False)
    for name, weight in whisper.named_parameters():
        weight.requires_grad_("layer_norm" in name)


def _need_a_gpu(*, has_gpu: bool) -> None:
    if not has_gpu:
        raise ConfigError("method norms needs a GPU")


NORMS = Method(
    card="on its layer norms",
    choose_weights=_train_norms,
    rates=(KnownRate("any", 0, 2e-3, "this test"),),
    gentler="frozen_encoder",
)


@pytest.fixture
def norms(monkeypatch: pytest.MonkeyPatch) -> str:
    """A method that only this test's table has."""
    monkeypatch.setitem(METHODS, "norms", NORMS)
    return "norms"


def run_of(config: TrainingConfig, output: Path) -> driver.TrainingRun:
    stream: Any = SimpleNamespace(
        utterances=UTTERANCES, examples=[Example(utterances=tuple(UTTERANCES))], cpus_per_task=None,
        tasks_per_worker=None, prefetch_batches=None, kinds=UTTERANCES, num_speakers=0,
        durations_s=np.array([sum(one.duration_s for one in UTTERANCES)]),
    )  # fmt: skip
    return build_run(config, train=stream, validation=UTTERANCES, output=output)


def test_an_entry_in_the_table_is_all_that_a_new_method_needs(
    tiny_checkpoint: Path, tmp_path: Path, norms: str
) -> None:
    settings = TrainingConfig(base=str(tiny_checkpoint), device="cpu", num_workers=1)
    run = run_of(settings.model_copy(update={"method": norms}), tmp_path)
    assert run.config.peak_lr == 2e-3
    assert run.warnings == ()
    checkpoint = load_start(run.config, UTTERANCES, precision="fp32", resume_folder=None)
    set_up(checkpoint, run.config)
    trained = [name for name, weight in checkpoint.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("layer_norm" in name for name in trained)
    assert run.parameters.trained < run.parameters.base
    record = describe_run(run, prepare_rejects=())
    assert record.training.method == norms
    row = EvaluationRow(
        step=0, epoch=0.0, training_loss=None, validation_loss=2.0, wer=0.5, wer_low=0.4, wer_high=0.6, cer=0.2,
        seconds=1.0,
    )  # fmt: skip
    measured = record.model_copy(update={"rows": (row,), "is_finished": True})
    assert "fine-tuned on its layer norms with Sottovoce" in build_model_card(measured, name="m").text
    assert [one.value for one in gentler_method(measured)] == ["frozen_encoder"]


def test_what_a_new_method_needs_is_checked_before_anything_starts(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = Method(card="", choose_weights=_train_norms, check=_need_a_gpu)
    monkeypatch.setitem(METHODS, "norms", needy)
    settings = TrainingConfig(base=str(tiny_checkpoint), device="cpu", num_workers=1)
    with pytest.raises(ConfigError, match="method norms needs a GPU"):
        run_of(settings.model_copy(update={"method": "norms"}), tmp_path)
