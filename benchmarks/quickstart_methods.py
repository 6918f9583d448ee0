"""Which method and learning rate does the quickstart's training want?

``python -m benchmarks.quickstart_methods --output FILE``. The quickstart's own corpus, model, batches and seed, by
Ray Train with two workers, once for each entry of ``VARIANTS``. They are compared on the 40 validation utterances;
the 124 test utterances are read only for the names in ``tested``, after the choice is made.

First it looks at what any method starts from: how far the embedding rows of the corpus' tokens are from those that
``micro`` has learned, beside how far AdamW can carry a row within a run.

A broken word is one that stands in no sentence of the grammar; a repeated word follows itself where the reference
has no such pair. Both are counted over what the best checkpoint writes, without beam search or any other help.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray
from pydantic import JsonValue

from benchmarks.common import Row, describe_machine, print_table, write_result
from serve.launch import start_ray
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.mixing import read_speech
from sottovoce.data.prepare import PrepareConfig, prepare_corpus
from sottovoce.demo.dictation import DictationConfig, make_dictation
from sottovoce.demo.grammar import load_grammar, vocabulary
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.publish.outcome import save_result
from sottovoce.recognize.scoring import RecognizerScore, score_folder
from sottovoce.schema import Utterance
from sottovoce.text.normalize import Normalizer, normalize
from sottovoce.train.config import TrainingConfig
from sottovoce.train.objective import learning_rate_scale
from sottovoce.train.run import build_run, run_training

_NORMALIZER: Normalizer = "basic"
_STEPS, _WARMUP_STEPS = 308, 20  # of the quickstart's recipe
_UNTRAINED = 0.9  # cosine to the mean row: tokens micro has met are below 0.5, all others above 0.98
_LORA: dict[str, JsonValue] = {"rank": 24, "alpha": 48, "dropout": 0.0, "token_rows": True}
_COMMON: dict[str, JsonValue] = {
    "base": "micro",
    "device": "cpu",
    "num_workers": 2,
    "cpus_per_worker": 0.5,
    "num_epochs": 11,
    "warmup_steps": _WARMUP_STEPS,
    "evaluate_every_steps": 77,  # every 2.75 epochs at batch 8
    "normalizer": _NORMALIZER,
    "spec_augment": {"num_time_masks": 1, "num_mel_masks": 1},
    "trackers": [],
}


class Variant(NamedTuple):
    """One way to train."""

    training: dict[str, JsonValue]
    """What differs from ``_COMMON``."""
    batch_size: int = 8
    """Utterances of one worker at one step."""


VARIANTS = {
    "full 8e-4": Variant({"learning_rate": 8e-4}),
    "full 4e-4": Variant({"learning_rate": 4e-4}),
    "full 2e-3": Variant({"learning_rate": 2e-3}),
    "full 3e-3": Variant({"learning_rate": 3e-3}),
    "full 5e-3": Variant({"learning_rate": 5e-3}),
    "frozen embeddings 2e-3": Variant({"method": "frozen_embeddings", "learning_rate": 2e-3}),
    "frozen encoder 2e-3": Variant({"method": "frozen_encoder", "learning_rate": 2e-3}),
    "lora 3e-3": Variant({"method": "lora", "lora": _LORA, "learning_rate": 3e-3}),
    "lora 8e-4": Variant({"method": "lora", "lora": _LORA, "learning_rate": 8e-4}),
    "lora 6e-3": Variant({"method": "lora", "lora": _LORA, "learning_rate": 6e-3}),
    "lora 3e-3 no rows": Variant({"method": "lora", "lora": _LORA | {"token_rows": False}, "learning_rate": 3e-3}),
    "full 2e-3 9 epochs": Variant({"learning_rate": 2e-3, "num_epochs": 9}),
    "lora 3e-3 9 epochs": Variant({"method": "lora", "lora": _LORA, "learning_rate": 3e-3, "num_epochs": 9}),
    "full 2e-3 batch 4": Variant({"learning_rate": 2e-3, "num_epochs": 9, "warmup_steps": 40}, batch_size=4),
    "lora 3e-3 batch 4": Variant(
        {"method": "lora", "lora": _LORA, "learning_rate": 3e-3, "num_epochs": 9, "warmup_steps": 40}, batch_size=4
    ),
}
"""By name; ``full 8e-4`` and ``lora 3e-3`` are the quickstart's two recipes."""


class MethodsBenchmark(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    folder: Path = Path("runs/quickstart_methods")
    """Receives the corpus, which is made once, and the runs."""
    names: tuple[str, ...] = tuple(VARIANTS)
    """Which of VARIANTS."""
    seeds: tuple[int, ...] = (0,)
    """Of the training; the corpus stays the same."""
    tested: tuple[str, ...] = ()
    """Which of them are also measured on the test split."""


def main(config: MethodsBenchmark) -> None:
    """Run the benchmark."""
    setup_logging()
    start_ray(host="127.0.0.1")
    manifest = prepare_dictation(config.folder)
    machine = describe_machine()
    rows: list[Row] = [describe_token_rows(read_speech((manifest,)).split("train"))]
    for name in config.names:
        for seed in config.seeds:
            rows.append(measure(name, seed=seed, manifest=manifest, config=config))
            write_result(config.output, "Which method fits the quickstart?", rows, machine=machine)
    ray.shutdown()
    print_table("Token rows", rows[:1])
    print_table("Methods of the quickstart", [{key: row[key] for key in row if key != "rows"} for row in rows[1:]])


def prepare_dictation(folder: Path) -> Path:
    """Make the quickstart's corpus, if it is not there, and give its manifest."""
    manifest = folder / "data" / "manifest.jsonl"
    if not manifest.is_file():
        corpus = make_dictation(folder / "corpus", DictationConfig())
        prepare_corpus(corpus, folder / "data", PrepareConfig(name="dictation", max_duration_s=10.0))
    return manifest


def describe_token_rows(utterances: Sequence[Utterance]) -> Row:
    """Compare the embedding rows of tokens that micro has met in its training with those it has not.

    The latter still lie around one shared row. AdamW moves a weight by about the learning rate at a step, always the
    same way where the gradient keeps its sign. ``reach`` is how far that carries a row within a run, by peak rate.
    """
    checkpoint = load_checkpoint("micro")
    table = checkpoint.model.model.decoder.embed_tokens.weight.detach().numpy()
    texts = table[: int(checkpoint.tokenizer.eos_token_id)]  # Whisper's own marks stand behind it
    shared = texts.mean(axis=0)
    tokens = Counter(
        token
        for one in utterances
        for token in checkpoint.tokenizer(f" {one.text}", add_special_tokens=False).input_ids
    )
    is_new = {token: float(_cosine(texts[token], shared)) > _UNTRAINED for token in tokens}
    new, known = (np.array([token for token in tokens if is_new[token] is wanted]) for wanted in (True, False))
    cosines = _cosine(texts[new][:, None], texts[new][None])[np.triu_indices(len(new), 1)]
    steps = range(_STEPS)
    total = sum(learning_rate_scale(step, warmup_steps=_WARMUP_STEPS, num_steps=_STEPS) for step in steps)
    return {
        "name": "token rows of micro",
        "tokens_known": len(known),
        "tokens_new": len(new),
        "share_of_text_new": sum(tokens[token] for token in new.tolist()) / tokens.total(),
        "norm_known": float(np.linalg.norm(texts[known], axis=1).mean()),
        "norm_new": float(np.linalg.norm(texts[new], axis=1).mean()),
        "cosine_of_two_new": float(cosines.mean()),
        "distance_new_from_shared": float(np.linalg.norm(texts[new] - shared, axis=1).mean()),
        "distance_known_from_shared": float(np.linalg.norm(texts[known] - shared, axis=1).mean()),
        "reach": {f"{rate:g}": rate * total * table.shape[1] ** 0.5 for rate in (8e-4, 2e-3, 3e-3)},
    }


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the cosines of vectors along the last axis."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosines: NDArray[np.float32] = (first * second).sum(axis=-1) / lengths
    return cosines


def measure(name: str, *, seed: int, manifest: Path, config: MethodsBenchmark) -> Row:
    """Train once and score what came out."""
    variant = VARIANTS[name]
    output = config.folder / "runs" / f"{name.replace(' ', '_')}_{seed}"
    shutil.rmtree(output, ignore_errors=True)
    data = DatasetConfig(manifest=(manifest,), batch_size=variant.batch_size)
    speech = read_speech(data.manifest)
    training = TrainingConfig.model_validate(_COMMON | variant.training | {"seed": seed})
    validation = speech.split("validation")
    started = perf_counter()
    run = build_run(training, train=build_stream(speech, data), validation=validation, output=output)
    run_training(run, is_shown=False)
    seconds = perf_counter() - started
    record = save_result(run, prepare_rejects=[])
    row: dict[str, object] = {
        "name": name,
        "seed": seed,
        "trained_parameters": record.num_trained_parameters,
        "best_step": record.best_step,
        "validation": describe_score(output, validation),
        "training_loss": record.rows[-1].training_loss,
        "validation_loss": record.rows[-1].validation_loss,
        "training_s": record.seconds,
        "wall_s": seconds,
        "rows": [
            {"step": one.step, "loss": one.validation_loss, "wer": one.wer, "s": one.seconds} for one in record.rows
        ],
    }
    if name in config.tested:
        row["test"] = describe_score(output, speech.split("test"))
    return row


def describe_score(output: Path, utterances: Sequence[Utterance]) -> dict[str, float]:
    """Score a run's checkpoint, and count broken and repeated words."""
    score = score_folder(output / "checkpoint", "torch", utterances=utterances, normalizer=_NORMALIZER)
    references = {one.id: one.text for one in utterances}
    return {"wer": score.wer, "cer": score.cer} | count_faults(score, references)


def count_faults(score: RecognizerScore, references: Mapping[str, str]) -> dict[str, float]:
    """Count words that no sentence of the grammar has, words said twice, and texts without any mistake."""
    known = vocabulary(load_grammar("dictation"))
    broken = repeated = right = 0
    for name, text in score.hypotheses.items():
        said, heard = (normalize(one, _NORMALIZER).split() for one in (references[name], text))
        broken += sum(word not in known for word in heard)
        repeated += sum(a == b for a, b in pairwise(heard)) - sum(a == b for a, b in pairwise(said))
        right += said == heard
    return {"broken_words": broken, "repeated_words": repeated, "right_texts": right}


if __name__ == "__main__":
    main(load_config(MethodsBenchmark))
