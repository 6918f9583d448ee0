"""Recognizers that share a base: each gives what its merged model gives."""

import pytest
import torch

from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import LoraSettings
from sottovoce.model.checkpoint import adapt_base, find_adapted, load_checkpoint, save_checkpoint
from sottovoce.model.shared_base import SharedBase
from sottovoce.recognize.adapted import share_adapter, share_base
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions


def test_a_shared_adapter_and_its_base_give_the_results_of_separate_models(tiny_checkpoint, speech_like, tmp_path):
    adapted = adapt_base(str(tiny_checkpoint), LoraSettings(rank=2), token_ids=lambda _: (), seed=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    save_checkpoint(adapted, tmp_path)
    shared = SharedBase(tiny_checkpoint)
    base = share_base(shared, num_threads=1)
    adapter = share_adapter(shared, find_adapted(tmp_path), num_threads=1)
    alone = [TorchRecognizer(load_checkpoint(folder), num_threads=1) for folder in (tiny_checkpoint, tmp_path)]
    options = [DecodeOptions(max_new_tokens=8, no_speech_threshold=None)] * 4
    expected = [[result.token_ids for result in one.recognize(speech_like[:4], options)] for one in alone]
    assert expected[0] != expected[1], "an adapter that changes nothing proves nothing"
    for _ in range(2):
        shares = [[result.token_ids for result in one.recognize(speech_like[:4], options)] for one in (base, adapter)]
        assert shares == expected
    assert (base.name, adapter.name) == ("torch", "torch-adapter")
    assert (adapter.context, adapter.languages) == (alone[1].context, alone[1].languages)
    adapter.close()
    assert shared.adapters == ()
    base.close()
    assert [result.token_ids for result in base.recognize(speech_like[:4], options)] == expected[0]


def test_an_adapter_without_a_recognizer_does_not_stay_in_its_base(tiny_checkpoint, tmp_path, monkeypatch):
    save_checkpoint(adapt_base(str(tiny_checkpoint), LoraSettings(rank=2), token_ids=lambda _: (), seed=0), tmp_path)
    shared = SharedBase(tiny_checkpoint)

    def fail(*_: object, **__: object) -> None:
        raise CheckpointError(tmp_path, "its assistant has another vocabulary")

    monkeypatch.setattr("sottovoce.recognize.adapted.TorchRecognizer", fail)
    with pytest.raises(CheckpointError, match="another vocabulary"):
        share_adapter(shared, find_adapted(tmp_path), num_threads=1)
    assert shared.adapters == ()
