"""How fast is an evaluation during training, beside Hugging Face's ``predict_with_generate``?

``python -m benchmarks.evaluation --output FILE``. The same model, clips, batch and precision, both in this process
with all cores; both return loss and WER. In ``padded`` both read 30 s spectrograms; in ``short`` the peer pads to 30 s,
as it must. Ours decodes FLAC and computes log-mel within the time measured; the peer's features are in memory.

``random`` is a model that never writes its end token, so that both write the same number of tokens, half as many again
as were said, and nothing of the reference is ever right: the worst case. Its clips are 28 to 30 s, or 2 to 15 s with a
median of 5. ``micro`` is the embedded model on sentences of up to 10 s it was not trained on: what an evaluation
measures once a model has learned, texts that end and are mostly right.
"""

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from benchmarks.clips import Shape, Workload, draw_durations, save_random_model, write_clips, write_sentences
from benchmarks.common import Row, print_table, time_interleaved, write_result
from benchmarks.hf_trainer import GuidesCollator, PaddedClips
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import decode_here
from sottovoce.data.manifest import write_manifest
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.model.context import set_audio_context
from sottovoce.model.labels import IGNORED
from sottovoce.schema import Utterance
from sottovoce.text.score import score_texts
from sottovoce.train.batches import Collator
from sottovoce.train.evaluation import Evaluator
from sottovoce.train.objective import WhisperObjective
from sottovoce.train.spectrograms import ThreadedSpectrograms

Model: TypeAlias = Literal["random", "micro"]

_CONTEXTS: dict[Workload, AudioContext] = {"padded": AudioContext(), "short": AudioContext(2.0, 15.0)}
_MAX_SENTENCE_S = 9.5  # within micro's longest context
_PREFIX_LENGTH = 4  # the peer counts it as part of what it generates


class EvaluationBenchmark(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    shape: Shape = "tiny"
    """Of the random model."""
    workloads: tuple[Workload, ...] = ("padded", "short")
    models: tuple[Model, ...] = ("random", "micro")
    repetitions: int = Field(default=5, ge=1)
    num_clips: int = Field(default=32, ge=1)
    """For the random model; micro reads twice as many, which are shorter."""
    batch_size: int = Field(default=16, ge=1)
    seed: int = 0


def main(config: EvaluationBenchmark) -> None:
    """Run the benchmark."""
    setup_logging()
    rows = [measure(model, workload, config) for model in config.models for workload in config.workloads]
    write_result(config.output, "Speed of an evaluation beside predict_with_generate, on all cores", rows)
    print_table("Evaluation", rows)


def measure(model: Model, workload: Workload, config: EvaluationBenchmark) -> Row:
    """Time both in turns on one workload."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint, clips = prepare(folder, model, workload, config)
        write_manifest(clips, folder / "manifest.jsonl")
        spectrograms = ThreadedSpectrograms(
            checkpoint.num_mel_bins, num_threads=torch.get_num_threads(), padding=checkpoint.context.padding
        )
        with closing(spectrograms):
            collator = Collator(checkpoint.tokenizer, checkpoint.context, spectrograms)
            ours = build_evaluator(checkpoint, clips, collator=collator, batch_size=config.batch_size)
            objective = WhisperObjective(checkpoint.model, label_smoothing=0.0)
            peer = build_peer(folder, max_new_tokens=ours.max_new_tokens, batch_size=config.batch_size)
            wer = ours.evaluate(objective, decode_here).score.wer.rate
            timings = time_interleaved(
                {"ours": lambda: ours.evaluate(objective, decode_here), "predict_with_generate": peer.evaluate},
                repetitions=config.repetitions,
            )
    mine, theirs = timings["ours"], timings["predict_with_generate"]
    return {
        "model": model,
        "shape": config.shape if model == "random" else "micro",
        "workload": workload,
        "num_clips": len(clips),
        "max_new_tokens": ours.max_new_tokens,
        "wer": wer,
        "ours_s": mine.median_s,
        "ours_iqr_s": mine.iqr_s,
        "peer_s": theirs.median_s,
        "peer_iqr_s": theirs.iqr_s,
        "ratio": theirs.median_s / mine.median_s,
        "bar": 2.0,
        "reach": 4.0,
        "repetitions": config.repetitions,
    }


def prepare(
    folder: Path, model: Model, workload: Workload, config: EvaluationBenchmark
) -> tuple[Checkpoint, tuple[Utterance, ...]]:
    """Write the model that both load, and what they hear."""
    context = _CONTEXTS[workload]
    if model == "random":
        clips = write_clips(folder, draw_durations(workload, config.num_clips, seed=config.seed), seed=config.seed)
        return save_random_model(folder / "model", config.shape, context=context, seed=config.seed), clips
    checkpoint = load_checkpoint("micro")
    if workload == "padded":
        set_audio_context(checkpoint.model.config, context)
    save_checkpoint(checkpoint, folder / "model")
    return checkpoint, write_sentences(folder, 2 * config.num_clips, max_s=_MAX_SENTENCE_S, seed=config.seed)


def build_evaluator(
    checkpoint: Checkpoint, clips: Sequence[Utterance], *, collator: Collator, batch_size: int
) -> Evaluator:
    """Build what a training worker evaluates with."""
    return Evaluator(
        checkpoint,
        clips,
        collator=collator,
        accelerator=Accelerator(cpu=True),
        batch_size=batch_size,
        normalizer="basic",
        spelling={},
    )


def build_peer(folder: Path, *, max_new_tokens: int, batch_size: int) -> Seq2SeqTrainer:
    """Build the trainer of the fine-tuning guides."""
    model = WhisperForConditionalGeneration.from_pretrained(folder / "model")
    tokenizer = WhisperTokenizerFast.from_pretrained(folder / "model")

    def compute_metrics(prediction: Any) -> dict[str, float]:  # noqa: ANN401 - transformers' own, untyped
        labels = np.where(prediction.label_ids == IGNORED, tokenizer.pad_token_id, prediction.label_ids)
        texts = [tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (labels, prediction.predictions)]
        return {"wer": score_texts(*texts, normalizer="basic").wer.rate}

    trainer: Seq2SeqTrainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(folder / "hf_trainer"),
            per_device_eval_batch_size=batch_size,
            predict_with_generate=True,
            generation_max_length=max_new_tokens + _PREFIX_LENGTH,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        eval_dataset=PaddedClips(
            folder / "manifest.jsonl", tokenizer=tokenizer, num_mel_bins=model.config.num_mel_bins
        ),
        data_collator=GuidesCollator(
            folder / "model", tokenizer=tokenizer, start_id=model.config.decoder_start_token_id
        ),
        compute_metrics=compute_metrics,
    )
    return trainer


if __name__ == "__main__":
    main(load_config(EvaluationBenchmark))
