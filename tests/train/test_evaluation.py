"""Validation measures what a recognizer of its own would."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator

from sottovoce.audio.decode import read_audio
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.data.dataset import decode_here
from sottovoce.errors import ConfigError, LabelTooLongError, TrainingMemoryError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.labels import Labels, prefix_ids
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, Utterance, WindowResult
from sottovoce.text.score import score_texts
from sottovoce.train.batches import Collator
from sottovoce.train.evaluation import VALIDATION_METRICS, Evaluator, plan_batches
from sottovoce.train.objective import WhisperObjective, prepare_whisper
from sottovoce.train.record import describe_row
from sottovoce.train.spectrograms import ThreadedSpectrograms

DURATIONS_S = (1.0, 2.6, 1.5, 2.9, 3.4)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("validation")
    random = np.random.default_rng(0)
    made = []
    for number, duration_s in enumerate(DURATIONS_S):
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * random.standard_normal(round(duration_s * 16_000)), 16_000)
        made.append(Utterance(id=str(number), audio=str(path), duration_s=duration_s, text="five words are said here"))
    return made


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def collator(checkpoint: Checkpoint) -> Iterator[Collator]:
    with closing(ThreadedSpectrograms(80, num_threads=1, padding="frames")) as spectrograms:
        yield Collator(checkpoint.tokenizer, checkpoint.context, spectrograms)


def build_evaluator(checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance]) -> Evaluator:
    return Evaluator(
        checkpoint,
        utterances,
        collator=collator,
        accelerator=Accelerator(cpu=True),
        batch_size=2,
        normalizer="none",
        spelling={},
    )


def test_texts_and_loss_are_those_of_the_model_alone(
    checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance]
) -> None:
    prepare_whisper(checkpoint.model, method="full", dropout=0.1, gradient_checkpointing=False)
    objective = WhisperObjective(checkpoint.model, label_smoothing=0.1)
    evaluator = build_evaluator(checkpoint, collator, utterances)
    evaluation = evaluator.evaluate(objective, decode_here)
    assert objective.training
    options = [DecodeOptions(language="en", max_new_tokens=evaluator.max_new_tokens)] * len(utterances)
    windows = [read_audio(utterance.audio) for utterance in utterances]
    texts = [result.text for result in TorchRecognizer(checkpoint).recognize(windows, options)]
    assert evaluation.score == score_texts([one.text for one in utterances], texts, normalizer="none")
    objective.eval()
    total, num_labels = 0.0, 0.0
    for place, utterance in enumerate(utterances):
        batch = collator.validation_batch([read_audio(utterance.audio)], [evaluator.labels[place]])
        with torch.no_grad():
            loss = objective(batch.input_features, batch.decoder_input_ids, batch.labels)
        total, num_labels = total + float(loss.total), num_labels + float(loss.num_labels)
    assert evaluation.validation_loss == pytest.approx(total / num_labels, rel=1e-5)


def test_only_windows_with_another_text_than_the_reference_are_decoded(
    checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that knows five words and the end token writes short texts, which here become the references."""
    words = checkpoint.tokenizer(" five words are said here", add_special_tokens=False).input_ids
    end_id = checkpoint.tokenizer.eos_token_id
    checkpoint.model.generation_config.suppress_tokens = [token for token in range(end_id) if token not in words]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(12)  # with which some windows end and some go on to the last token there is room for
        checkpoint.model.model.decoder.embed_tokens.weight[end_id] = 0.3 * torch.randn(32)
    evaluator = build_evaluator(checkpoint, collator, utterances)
    windows = [read_audio(utterance.audio) for utterance in utterances]
    options = DecodeOptions(language="en", max_new_tokens=evaluator.max_new_tokens)
    results = TorchRecognizer(checkpoint).recognize(windows, [options] * len(windows))
    prefix = prefix_ids(checkpoint.tokenizer, language="en", task="transcribe", timestamps=False)
    for place, result in enumerate(results):
        ids = [*prefix, *result.token_ids, end_id]
        evaluator.labels[place] = Labels(inputs=ids[:-1], targets=ids[1:])
    ended = [place for place, result in enumerate(results) if len(result.token_ids) < evaluator.max_new_tokens]
    assert ended == [0, 1, 2]
    decoded: list[int] = []
    recognize = TorchRecognizer.recognize_encoded

    def count(self: TorchRecognizer, encoded: torch.Tensor, options: list[DecodeOptions]) -> list[WindowResult]:
        decoded.append(len(encoded))
        return recognize(self, encoded, options)

    monkeypatch.setattr(TorchRecognizer, "recognize_encoded", count)
    evaluation = evaluator.evaluate(WhisperObjective(checkpoint.model, label_smoothing=0.0), decode_here)
    assert decoded == [1, 1], "the batches are those of the windows 4, 1 with 3, 0 with 2"
    texts = [result.text for result in results]
    assert evaluation.score == score_texts([one.text for one in utterances], texts, normalizer="none")


def test_every_batch_is_noted_and_one_that_takes_too_much_memory_is_named(
    checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance]
) -> None:
    class Greedy(WhisperObjective):
        def compute_logits(self, *_: torch.Tensor) -> torch.Tensor:
            return torch.empty(2**60)  # more than any machine has

    evaluator = build_evaluator(checkpoint, collator, utterances)
    noted: list[str] = []
    evaluator.evaluate(WhisperObjective(checkpoint.model, label_smoothing=0.0), decode_here, note=noted.append)
    assert noted == ["evaluating"] * 3 + ["waiting for the other ranks"]
    with pytest.raises(TrainingMemoryError, match=r"evaluating: .* \(4\).*evaluation_batch_size"):
        evaluator.evaluate(Greedy(checkpoint.model, label_smoothing=0.0), decode_here)


def test_an_entry_in_the_table_is_all_that_a_new_metric_needs(
    checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VALIDATION_METRICS, "characters", lambda one: float(sum(map(len, one.hypotheses))))
    evaluator = build_evaluator(checkpoint, collator, utterances)
    evaluation = evaluator.evaluate(WhisperObjective(checkpoint.model, label_smoothing=0.0), decode_here)
    assert evaluation.metrics["wer"] == evaluation.score.wer.rate
    row = evaluation.row(step=3, epoch=1.0, training_loss=None, seconds=2.0)
    assert (row.step, row.wer, row.cer) == (3, evaluation.score.wer.rate, evaluation.score.cer.rate)
    assert set(row.metrics) == {"characters"}
    assert describe_row(row).endswith(f"characters {row.metrics['characters']:.4g}")
    assert EvaluationRow.model_validate_json(row.model_dump_json()) == row


def test_rows_of_older_releases_have_no_further_metrics(evaluated_row: dict[str, Any]) -> None:
    assert EvaluationRow.model_validate(evaluated_row).metrics == {}


@pytest.fixture
def evaluated_row() -> dict[str, Any]:
    """A row as a checkpoint of release 0.1 has it."""
    return {
        "step": 0, "epoch": 0.0, "training_loss": None, "validation_loss": 2.5, "wer": 0.5, "wer_low": 0.4,
        "wer_high": 0.6, "cer": 0.2, "seconds": 1.5, "groups": [],
    }  # fmt: skip


def test_a_transcript_that_does_not_fit_the_decoder_names_its_utterance(
    checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance]
) -> None:
    long = utterances[1].model_copy(update={"text": "word " * 500})
    with pytest.raises(LabelTooLongError, match=r"of validation utterance 1 has \d+ tokens"):
        build_evaluator(checkpoint, collator, [utterances[0], long])


def test_recordings_that_cannot_be_read_are_named_and_count_in_no_score(
    checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance], tmp_path: Path
) -> None:
    """One has vanished, and one is damaged; the others score as they do by themselves."""
    (tmp_path / "damaged.wav").write_bytes(b"no audio")
    vanished = utterances[1].model_copy(update={"id": "vanished", "audio": str(tmp_path / "gone.wav")})
    damaged = utterances[3].model_copy(update={"id": "damaged", "audio": str(tmp_path / "damaged.wav")})
    objective = WhisperObjective(checkpoint.model, label_smoothing=0.0)
    told: list[str] = []
    evaluation = build_evaluator(checkpoint, collator, [*utterances, vanished, damaged]).evaluate(
        objective, decode_here, check_rejects=lambda lost: told.extend(one.id for one in lost)
    )
    alone = build_evaluator(checkpoint, collator, utterances).evaluate(objective, decode_here)
    assert evaluation.score == alone.score
    assert evaluation.validation_loss == pytest.approx(alone.validation_loss, rel=1e-6)
    assert {one.id: one.reason for one in evaluation.rejects} == {"vanished": "missing_file", "damaged": "unreadable"}
    assert sorted(told) == ["damaged", "vanished"]
    row = evaluation.row(step=3, epoch=1.0, training_loss=None, seconds=2.0)
    assert row.metrics == {"lost_utterances": 2.0}
    assert describe_row(row).endswith(", lost_utterances 2")
    assert alone.row(step=3, epoch=1.0, training_loss=None, seconds=2.0).metrics == {}


def test_a_validation_split_without_a_readable_recording_is_a_config_error(
    checkpoint: Checkpoint, collator: Collator, utterances: list[Utterance], tmp_path: Path
) -> None:
    lost = [one.model_copy(update={"audio": str(tmp_path / "gone.wav")}) for one in utterances[:3]]
    evaluator = build_evaluator(checkpoint, collator, lost)
    with pytest.raises(ConfigError, match=r"none of the 3 validation recordings can be read, .* no file .*gone\.wav"):
        evaluator.evaluate(WhisperObjective(checkpoint.model, label_smoothing=0.0), decode_here)


def test_batches_hold_one_context_each_and_every_utterance_once() -> None:
    durations_s = [1.0, 9.9, 2.6, 1.5, 2.9, 2.6, 2.7]
    context = AudioContext(2.0, 10.0)
    batches = plan_batches(durations_s, context, batch_size=3)
    assert sorted(place for batch in batches for place in batch) == list(range(len(durations_s)))
    assert all(len({context.num_frames_for(durations_s[place]) for place in batch}) == 1 for batch in batches)
    assert [len(batch) for batch in batches] == [1, 3, 1, 2]
