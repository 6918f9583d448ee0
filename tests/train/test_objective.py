from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from sottovoce.model.adapter import LoraSettings
from sottovoce.model.checkpoint import adapt_base, load_checkpoint
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.labels import IGNORED
from sottovoce.train.batches import find_label_indices
from sottovoce.train.objective import WhisperObjective, parameter_groups, prepare_whisper

INPUTS = torch.tensor([[50_258, 50_259, 11], [50_258, 50_259, 50_257]])
TARGETS = torch.tensor([[50_259, 11, 50_257], [50_259, 50_257, IGNORED]])


@pytest.fixture
def whisper(tiny_checkpoint: Path) -> TrimmedWhisper:
    return load_checkpoint(tiny_checkpoint).model


def prepared(whisper: TrimmedWhisper, *, method: str = "full", dropout: float = 0.0) -> TrimmedWhisper:
    prepare_whisper(whisper, method=method, dropout=dropout, gradient_checkpointing=False)
    return whisper


def adapted(base: Path) -> TrimmedWhisper:
    settings = LoraSettings(rank=2, dropout=0.0, token_rows=True)
    return adapt_base(str(base), settings, token_ids=lambda _tokenizer: (11, 50_257), seed=0).model


@contextmanager
def computed_again(whisper: TrimmedWhisper) -> Iterator[list[int]]:
    """Count forward passes of the decoder's layer; the list holds one number for each after the first."""
    calls: list[int] = []
    (layer,) = whisper.model.decoder.layers
    hook = layer.fc1.register_forward_hook(lambda *_args: calls.append(1))
    again: list[int] = []
    yield again
    hook.remove()
    again += calls[1:]


def features() -> torch.Tensor:
    return torch.randn(2, 80, 200, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_that_of_the_model_itself(whisper: TrimmedWhisper) -> None:
    loss = WhisperObjective(prepared(whisper), label_smoothing=0.0)(features(), INPUTS, TARGETS)
    expected = whisper(input_features=features(), decoder_input_ids=INPUTS, labels=TARGETS).loss
    assert loss.num_labels == 5
    assert loss.total.item() / 5 == pytest.approx(expected.item(), rel=1e-5)


def test_the_logits_are_those_of_the_labels_that_count_row_by_row(whisper: TrimmedWhisper) -> None:
    objective = WhisperObjective(prepared(whisper), label_smoothing=0.0)
    encoded = whisper.model.encoder(features()).last_hidden_state
    hidden = whisper.model.decoder(input_ids=INPUTS, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
    places = find_label_indices(TARGETS)
    found = objective.compute_logits(encoded, INPUTS, places)
    assert torch.equal(found, whisper.proj_out(hidden[TARGETS != IGNORED]))
    assert objective(features(), INPUTS, TARGETS, places).total == objective(features(), INPUTS, TARGETS).total


def test_a_step_needs_no_value_from_the_device(whisper: TrimmedWhisper) -> None:
    """The meta device has shapes and no values: what would wait for one on a GPU, as a mask's count, fails there."""
    objective = WhisperObjective(prepared(whisper), label_smoothing=0.1).to("meta")
    tensors = (features(), INPUTS, TARGETS, find_label_indices(TARGETS))
    loss = objective(*(tensor.to("meta") for tensor in tensors))
    loss.total.backward()
    assert loss.total.is_meta
    assert loss.num_labels.is_meta


def test_label_smoothing_counts_in_training_only(whisper: TrimmedWhisper) -> None:
    plain, smooth = (WhisperObjective(prepared(whisper), label_smoothing=value) for value in (0.0, 0.1))
    assert smooth(features(), INPUTS, TARGETS).total != plain(features(), INPUTS, TARGETS).total
    plain.eval()
    smooth.eval()
    assert smooth(features(), INPUTS, TARGETS).total == plain(features(), INPUTS, TARGETS).total


def test_a_batch_in_which_no_label_counts_changes_nothing(whisper: TrimmedWhisper) -> None:
    objective = WhisperObjective(prepared(whisper), label_smoothing=0.1)
    loss = objective(features(), INPUTS, torch.full_like(TARGETS, IGNORED)).total
    loss.backward()
    assert loss == 0.0
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


def test_a_frozen_encoder_gets_no_gradient_and_the_decoder_does(whisper: TrimmedWhisper) -> None:
    objective = WhisperObjective(prepared(whisper, method="frozen_encoder"), label_smoothing=0.0)
    objective(features(), INPUTS, TARGETS).total.backward()
    assert all(p.grad is None for p in whisper.model.encoder.parameters())
    assert all(p.grad is not None for p in whisper.model.decoder.parameters() if p.requires_grad)


def test_full_fine_tuning_trains_all_but_the_fixed_positions(whisper: TrimmedWhisper) -> None:
    frozen = [name for name, p in prepared(whisper).named_parameters() if not p.requires_grad]
    assert frozen == ["model.encoder.embed_positions.weight"]


def test_frozen_embeddings_stay_and_all_else_learns(whisper: TrimmedWhisper) -> None:
    objective = WhisperObjective(prepared(whisper, method="frozen_embeddings"), label_smoothing=0.0)
    before = {name: weight.clone() for name, weight in whisper.state_dict().items()}
    objective(features(), INPUTS, TARGETS).total.backward()
    torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1).step()
    still = {name for name, weight in whisper.state_dict().items() if torch.equal(weight, before[name])}
    assert {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight", "proj_out.weight"} <= still
    assert not [name for name in still if name.endswith(("q_proj.weight", "fc1.weight", "conv1.weight"))]


def test_an_adapter_learns_and_its_base_stays(tiny_checkpoint: Path) -> None:
    whisper = adapted(tiny_checkpoint)
    objective = WhisperObjective(prepared(whisper, method="lora"), label_smoothing=0.0)
    before = {name: weight.clone() for name, weight in whisper.state_dict().items()}
    objective(features(), INPUTS, TARGETS).total.backward()
    torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1).step()
    moved = {name for name, weight in whisper.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved
    assert all("lora_B" in name or "trainable_tokens_delta" in name for name in moved)  # A's gradient is zero with B


@pytest.mark.parametrize("method", ["full", "frozen_encoder", "frozen_embeddings", "lora"])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_checkpoint: Path, method: str) -> None:
    whisper = adapted(tiny_checkpoint) if method == "lora" else load_checkpoint(tiny_checkpoint).model
    objective = WhisperObjective(prepared(whisper, method=method), label_smoothing=0.0)
    objective(features(), INPUTS, TARGETS).total.backward()
    expected = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
    objective.zero_grad()
    prepare_whisper(whisper, method=method, dropout=0.0, gradient_checkpointing=True)
    with computed_again(whisper) as again:
        objective(features(), INPUTS, TARGETS).total.backward()
    assert again, "no layer was computed a second time"
    found = [p.grad for p in objective.parameters() if p.grad is not None]
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_reaches_the_layers(whisper: TrimmedWhisper) -> None:
    objective = WhisperObjective(prepared(whisper, dropout=0.5), label_smoothing=0.0)
    with torch.random.fork_rng():
        losses = {objective(features(), INPUTS, TARGETS).total.item() for _ in range(3)}
    assert len(losses) == 3


def test_matrices_decay_and_vectors_do_not() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    decayed, others = parameter_groups(module, weight_decay=0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [p.shape for p in decayed["params"]] == [(4, 3)]  # type: ignore[attr-defined]
    assert len(others["params"]) == 3  # type: ignore[arg-type]
