"""Trained embedding rows give what peft's own layers give, in values and gradients."""

import copy
from pathlib import Path

import pytest
import torch
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

from sottovoce.model.adapter import LoraSettings
from sottovoce.model.checkpoint import adapt_base
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.token_rows import TokenRowsLayer
from sottovoce.train.objective import WhisperObjective

PADDING = 50_257
TOKEN_IDS = (11, 700, PADDING, 50_258)
INPUTS = torch.tensor([[50_258, 50_259, 11, 700, 900, PADDING], [50_258, 50_259, 700, 700, 12, PADDING]])


@pytest.fixture(scope="module")
def whisper(tiny_checkpoint: Path) -> TrimmedWhisper:
    settings = LoraSettings(rank=2, alpha=4, dropout=0.0, token_rows=True)
    model = adapt_base(str(tiny_checkpoint), settings, token_ids=lambda _tokenizer: TOKEN_IDS, seed=0).model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def loss_and_gradients(model: TrimmedWhisper) -> tuple[float, dict[str, torch.Tensor]]:
    features = torch.randn(2, 80, 200, generator=torch.Generator().manual_seed(0))
    loss = WhisperObjective(model, label_smoothing=0.1)(features, INPUTS, INPUTS.roll(-1, dims=1)).total
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.item(), gradients


def test_loss_and_gradients_are_pefts_own(whisper: TrimmedWhisper) -> None:
    ours, pefts = copy.deepcopy(whisper), copy.deepcopy(whisper)
    layers = [module for module in pefts.modules() if type(module) is TokenRowsLayer]
    assert len(layers) == 2, "the embedding, and the output layer that is tied to it"
    for layer in layers:
        layer.__class__ = TrainableTokensLayer
    loss, gradients = loss_and_gradients(ours)
    expected_loss, expected = loss_and_gradients(pefts)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert gradients.keys() == expected.keys()
    assert any("trainable_tokens" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_no_gradient_has_the_size_of_the_vocabulary(whisper: TrimmedWhisper) -> None:
    sizes = {tuple(gradient.shape) for gradient in loss_and_gradients(copy.deepcopy(whisper))[1].values()}
    assert (len(TOKEN_IDS), whisper.config.d_model) in sizes
    assert all(whisper.config.vocab_size not in shape for shape in sizes)
