"""Self-distillation to trimmed contexts: what it minimizes, what it trains, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce.audio.features import Padding, log_mel_batch
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.labels import IGNORED
from sottovoce.train.distillation import DistillationObjective
from sottovoce.train.objective import WhisperObjective, pad_frames, parameter_groups, prepare_whisper

INPUTS = torch.tensor([[50_258, 50_259, 11], [50_258, 50_259, 50_257]])
TARGETS = torch.tensor([[50_259, 11, 50_257], [50_259, 50_257, IGNORED]])
POSITIONS, LONGEST = 3_000, 1_000  # frames the encoder has positions for; frames of the tiny model's longest context


@pytest.fixture
def student(tiny_checkpoint: Path) -> TrimmedWhisper:
    whisper = load_checkpoint(tiny_checkpoint).model
    prepare_whisper(whisper, method="adapt_context", dropout=0.0, gradient_checkpointing=False)
    return whisper


@pytest.fixture
def teacher(tiny_checkpoint: Path) -> TrimmedWhisper:
    return load_checkpoint(tiny_checkpoint).model


def features() -> torch.Tensor:
    return torch.randn(2, 80, 200, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("padding", "tolerance"), [("sound", 1e-6), ("frames", 0.0)])
def test_padded_spectrograms_are_those_of_a_longer_context(speech_like, padding: Padding, tolerance: float) -> None:
    windows = [window[:31_500] for window in speech_like[3:6]]  # more than a window before the end of 200 frames
    short, long = (
        log_mel_batch(windows, num_mel_bins=80, num_frames=frames, padding=padding) for frames in (200, POSITIONS)
    )
    padded = pad_frames(torch.from_numpy(short), POSITIONS, padding=padding).numpy()
    assert padded.shape == long.shape
    assert abs(padded - long).max() <= tolerance


@pytest.mark.parametrize("padding", ["sound", "frames"])
def test_silence_is_padded_as_it_is_read(padding: Padding) -> None:
    short, long = (
        log_mel_batch([np.zeros(16_000, np.float32)], num_mel_bins=80, num_frames=frames, padding=padding)
        for frames in (200, 300)
    )
    np.testing.assert_allclose(pad_frames(torch.from_numpy(short), 300, padding=padding), long, atol=1e-6)


def test_a_student_that_reads_what_its_teacher_reads_has_nothing_to_learn(student, teacher) -> None:
    loss = DistillationObjective(student, teacher, padded_probability=1.0)(features(), INPUTS, TARGETS)
    assert loss.num_labels == 5
    assert loss.total.item() == pytest.approx(0.0, abs=1e-4)


def test_a_trimmed_student_differs_from_its_teacher_in_states_and_tokens(student, teacher) -> None:
    torch.manual_seed(0)
    objective = DistillationObjective(student, teacher, padded_probability=0.0)
    first = objective(features(), INPUTS, TARGETS).total.item()
    margins = {objective(features(), INPUTS, TARGETS).total.item() for _ in range(4)}
    assert first > 0.01
    assert len(margins) > 1, "each batch has a margin of its own"
    torch.manual_seed(0)
    assert objective(features(), INPUTS, TARGETS).total.item() == first, "it follows from torch's random numbers"


def test_the_encoder_alone_is_trained_and_the_teacher_stays_as_it_is(student, teacher) -> None:
    objective = DistillationObjective(student, teacher, padded_probability=0.0)
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(objective, weight_decay=0.0), lr=1e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(1)
        loss = objective(features(), INPUTS, TARGETS).total
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    trained = {name for name, weight in objective.named_parameters() if weight.requires_grad}
    assert trained
    assert all(name.startswith("whisper.model.encoder.") for name in trained)
    assert "whisper.model.encoder.embed_positions.weight" not in trained
    assert all(torch.equal(teacher.state_dict()[name], weight) for name, weight in before.items())


def test_the_teacher_reads_its_longest_context_and_the_student_a_shorter_one(student, teacher) -> None:
    objective = DistillationObjective(student, teacher, padded_probability=0.0)
    read = {"teacher": [], "student": []}
    for name, whisper in (("teacher", teacher), ("student", student)):
        whisper.model.encoder.conv1.register_forward_hook(
            lambda _module, inputs, _output, lengths=read[name]: lengths.append(inputs[0].shape[2])
        )
    for _ in range(8):
        objective(features(), INPUTS, TARGETS)
    assert set(read["teacher"]) == {LONGEST}
    assert all(200 <= length <= 300 and length % 2 == 0 for length in read["student"])


def test_evaluation_has_the_loss_of_every_other_objective(student, teacher) -> None:
    encoded = student.model.encoder(features()).last_hidden_state
    indices = torch.tensor([0, 2])
    ours = DistillationObjective(student, teacher, padded_probability=0.5).eval()
    theirs = WhisperObjective(student).eval()
    assert ours.score_encoded(encoded, INPUTS, TARGETS, indices) == theirs.score_encoded(
        encoded, INPUTS, TARGETS, indices
    )


def test_fine_tuning_pads_a_share_of_its_batches(student) -> None:
    objective = WhisperObjective(student, padded_probability=0.5)
    lengths: list[int] = []
    student.model.encoder.conv1.register_forward_hook(
        lambda _module, inputs, _output: lengths.append(inputs[0].shape[2])
    )
    torch.manual_seed(0)
    for _ in range(16):
        objective(features(), INPUTS, TARGETS)
    assert set(lengths) == {200, POSITIONS}
    lengths.clear()
    objective.eval()(features(), INPUTS, TARGETS)
    assert lengths == [200]
