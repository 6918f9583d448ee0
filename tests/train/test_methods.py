from pathlib import Path

import pytest

from sottovoce.errors import CheckpointError, FourBitUnavailableError
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.methods import check_method, count_parameters, count_weights
from sottovoce.train.worker_model import load_base, set_up

UTTERANCES = [Utterance(id="u", audio="a.wav", duration_s=1.0, text="yes")]


def config_for(base: Path, method: str, **lora: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"base": str(base), "method": method, "lora": {"rank": 2} | lora})


def test_qlora_without_a_gpu_names_the_remedy_before_anything_starts(tiny_checkpoint: Path) -> None:
    with pytest.raises(FourBitUnavailableError, match=r"needs a CUDA device, .* use method=lora"):
        check_method(config_for(tiny_checkpoint, "qlora"), device="cpu")


def test_qlora_without_bitsandbytes_names_the_package(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sottovoce.model.frozen_base.find_spec", lambda _name: None)
    with pytest.raises(FourBitUnavailableError, match="needs the package bitsandbytes"):
        check_method(config_for(tiny_checkpoint, "qlora"), device="cuda")
    monkeypatch.setattr("sottovoce.model.frozen_base.find_spec", lambda name: name)
    check_method(config_for(tiny_checkpoint, "qlora"), device="cuda")


def test_an_adapter_for_an_adapter_is_refused_before_anything_starts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(load_base(config_for(tiny_checkpoint, "lora"), UTTERANCES), tmp_path)
    with pytest.raises(CheckpointError, match="itself an adapter; merge it first"):
        check_method(config_for(tmp_path, "lora"), device="cpu")
    check_method(config_for(tmp_path, "full"), device="cpu")


@pytest.mark.parametrize("method", ["full", "frozen_encoder", "frozen_embeddings", "lora"])
def test_the_count_without_memory_is_that_of_the_model_a_worker_trains(tiny_checkpoint: Path, method: str) -> None:
    config = config_for(tiny_checkpoint, method, token_rows=True)
    checkpoint = load_base(config, UTTERANCES)
    set_up(checkpoint, config)
    count = count_parameters(config, UTTERANCES)
    assert count.trained == sum(weight.numel() for weight in checkpoint.model.parameters() if weight.requires_grad)
    assert count.base == sum(weight.numel() for weight in load_checkpoint(tiny_checkpoint).model.parameters())
    assert 0 < count.trained < count.base
    assert count_weights(str(tiny_checkpoint)) == count.base


def test_no_rows_are_trained_where_nobody_asked(tiny_checkpoint: Path) -> None:
    with_rows, without = (
        count_parameters(config_for(tiny_checkpoint, "lora", token_rows=rows), UTTERANCES).trained
        for rows in (True, False)
    )
    # start, language, task, no-timestamps, end and the one token of " yes", each a row of 32
    assert with_rows - without == 6 * 32
