from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.objective import WhisperObjective, parameter_groups
from sottovoce.train.worker_model import load_base, load_start, set_up


def spoken_in(*languages: str) -> list[Utterance]:
    return [Utterance(id=one, audio="a.wav", duration_s=1.0, text="x", language=one) for one in languages]


def test_context_language_and_task_are_in_the_files_of_what_is_trained(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = TrainingConfig(base=str(tiny_checkpoint), audio_context_s=(1.0, 6.0))
    save_checkpoint(load_base(config, spoken_in("de", "de")), tmp_path)
    trained = load_checkpoint(tmp_path)
    generation = trained.model.generation_config.to_dict()
    assert (generation["language"], generation["task"]) == ("de", "transcribe")
    assert generation.get("forced_decoder_ids") is None
    assert (trained.context.min_s, trained.context.max_s) == (1.0, 6.0)
    assert trained.languages == load_checkpoint(tiny_checkpoint).languages


def test_several_languages_leave_the_choice_to_detection(tiny_checkpoint: Path) -> None:
    model = load_base(TrainingConfig(base=str(tiny_checkpoint)), spoken_in("de", "en")).model
    assert model.generation_config.to_dict().get("language") is None
    assert (model.audio_context.min_s, model.audio_context.max_s) == (2.0, 10.0)


def test_the_task_is_that_of_the_data_and_transcription_where_it_is_mixed(tiny_checkpoint: Path) -> None:
    config = TrainingConfig(base=str(tiny_checkpoint))
    translated = [one.model_copy(update={"task": "translate"}) for one in spoken_in("de")]
    for utterances, task in ((translated, "translate"), ([*translated, *spoken_in("de")], "transcribe")):
        assert load_base(config, utterances).model.generation_config.to_dict()["task"] == task


def test_training_on_silence_lets_the_model_write_nothing_at_all(tiny_checkpoint: Path, tmp_path: Path) -> None:
    stock = load_checkpoint(tiny_checkpoint)
    stock.model.generation_config.begin_suppress_tokens = [220, stock.model.generation_config.eos_token_id]
    save_checkpoint(stock, tmp_path)
    config = TrainingConfig(base=str(tmp_path))
    silence = [one.model_copy(update={"text": " "}) for one in spoken_in("en")]
    with_silence = load_base(config, [*spoken_in("en"), *silence]).model.generation_config
    assert with_silence.begin_suppress_tokens == [220]
    assert load_base(config, spoken_in("en")).model.generation_config.begin_suppress_tokens == [220, 50257]


def train(checkpoint: Checkpoint, config: TrainingConfig, steps: Sequence[int], state: object) -> object:
    """Take some steps of a run in this process; return the optimizer state that a checkpoint would hold."""
    set_up(checkpoint, config)
    objective = WhisperObjective(checkpoint.model, label_smoothing=0.0)
    optimizer = torch.optim.AdamW(parameter_groups(objective, weight_decay=0.01), lr=1e-2)
    if state is not None:
        optimizer.load_state_dict(state)
    for step in steps:
        torch.manual_seed(step)  # of the adapter's dropout, whose state a checkpoint holds as well
        labels = torch.tensor([[50_259, 11, 50_257]])
        objective(torch.randn(1, 80, 200), torch.tensor([[50_258, 50_259, 11]]), labels).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer.state_dict()


def test_a_resumed_adapter_ends_with_the_very_weights_of_one_that_was_not_stopped(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    lora = {"rank": 2, "dropout": 0.1, "token_rows": True}
    config = TrainingConfig.model_validate({"base": str(tiny_checkpoint), "method": "lora", "lora": lora, "seed": 4})
    utterances = spoken_in("en")
    straight = load_start(config, utterances, precision="fp32", resume_folder=None)
    train(straight, config, range(4), None)
    stopped = load_start(config, utterances, precision="fp32", resume_folder=None)
    state = train(stopped, config, range(2), None)
    save_checkpoint(stopped, tmp_path / MODEL_FOLDER)
    resumed = load_start(config, utterances, precision="fp32", resume_folder=tmp_path)
    end = train(resumed, config, range(2, 4), state)
    assert straight.adapter is not None
    assert resumed.adapter is not None
    found = resumed.adapter.state()
    for name, weight in straight.adapter.state().items():
        assert torch.equal(weight, found[name])
    assert isinstance(end, dict)
    assert len(end["state"]) == len(found), "the optimizer holds more than the adapter"


@pytest.mark.parametrize("token_rows", [True, False])
def test_a_base_held_in_half_precision_gives_the_same_loss_and_gradients(
    tiny_checkpoint: Path, token_rows: bool
) -> None:
    lora = {"rank": 2, "token_rows": token_rows}
    config = TrainingConfig.model_validate({"base": str(tiny_checkpoint), "method": "lora", "lora": lora})
    whole = load_base(config, spoken_in("en"), precision="bf16")
    halved = load_start(config, spoken_in("en"), precision="bf16", resume_folder=None)
    matrices = [one for one in halved.model.parameters() if one.dtype == torch.bfloat16]
    assert len(matrices) > 20
    assert not any(one.requires_grad for one in matrices)
    embeddings = [one.weight for one in halved.model.modules() if isinstance(one, torch.nn.Embedding)]
    assert {one.dtype for one in embeddings} == {torch.float32}
    labels, inputs = torch.tensor([[50_259, 11, 50_257]]), torch.tensor([[50_258, 50_259, 11]])
    losses = []
    for checkpoint in (whole, halved):
        set_up(checkpoint, config)
        features = torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = WhisperObjective(checkpoint.model, label_smoothing=0.0)(features, inputs, labels).total
        loss.backward()
        losses.append(loss)
    assert losses[0] == losses[1]
    for one, other in zip(whole.model.parameters(), halved.model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)
