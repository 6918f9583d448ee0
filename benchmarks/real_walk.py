"""The walk behind ``real_whisper``: data, manifests, fine-tuning, exports, each by the job a user would run.

What is there already is not made again: delete a folder to make it anew.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faster_whisper_peer import convert_checkpoint
from benchmarks.whisper_systems import ModelFolders, ModelName
from sottovoce.data.manifest import read_manifest
from sottovoce.recognize.scoring import select_split
from sottovoce.schema import Utterance
from sottovoce.train.record import RECORD_FILE, TrainingRecord

logger = logging.getLogger(__name__)

TRAINED_SOURCE = "coqui-ai/TTS"  # of ordinary speech: LJ Speech, one reader; all other sources are the test
_VALIDATION_EVERY = 8  # of those sentences
_MODELS: tuple[ModelName, ...] = ("base", "fine-tuned")
_OPEN_GATE = 100.0  # lets any export of the base pass: it is there for its speed, and scored with all others
_SCORED_BY_OPEN_GATE = 4  # utterances


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is made, trained and scored."""

    num_train: int
    num_validation: int
    num_test: int
    max_steps: int | None


@dataclass(frozen=True)
class Walk:
    """Where everything of one benchmark lies."""

    folder: Path
    model: Path
    """The base checkpoint."""

    @property
    def digits(self) -> Path:
        """Manifest of connected digits."""
        return self.folder / "digits" / "manifest.jsonl"

    @property
    def speech(self) -> Path:
        """Manifest of ordinary English speech."""
        return self.folder / "speech" / "manifest.jsonl"

    @property
    def run(self) -> Path:
        """Output of the training job."""
        return self.folder / "base-digits"

    @property
    def folders(self) -> dict[ModelName, ModelFolders]:
        """Where both models lie in each format."""
        return {
            "base": ModelFolders(
                checkpoint=self.model,
                export=self.folder / "export-base",
                converted=self.folder / "faster-whisper-base",
            ),
            "fine-tuned": ModelFolders(
                checkpoint=self.run / "checkpoint",
                export=self.folder / "export-fine-tuned",
                converted=self.folder / "faster-whisper-fine-tuned",
            ),
        }

    def read_record(self) -> TrainingRecord:
        """Read what training measured."""
        return TrainingRecord.model_validate_json((self.run / RECORD_FILE).read_text(encoding="utf-8"))

    def test_digits(self) -> list[Utterance]:
        """Read the utterances that the models are scored on."""
        return select_split(read_manifest(self.digits), "test")

    def test_speech(self) -> list[Utterance]:
        """Read the ordinary speech that no training step saw."""
        return select_split(read_manifest(self.speech), "test")


def prepare_data(walk: Walk, *, digits: Path, speech: Path, sizes: Sizes) -> None:
    """Join digits, divide ordinary speech by source, and prepare both.

    Args:
        walk: where to.
        digits: audio folder of single spoken digits.
        speech: folder with ``manifest.jsonl`` of ordinary speech in several languages; the English of it is used.
        sizes: how many utterances.

    Raises:
        subprocess.CalledProcessError: a job failed; its own message stands above.
    """
    corpus = walk.folder / "corpus"
    if not (corpus / "make_digits.yaml").is_file():
        counts = {"train": sizes.num_train, "validation": sizes.num_validation, "test": sizes.num_test}
        options = [f"--digits.num-{split}={count}" for split, count in counts.items()]
        run_job("make_digits", f"--source={digits}", f"--output={corpus}", *options)
    if not walk.digits.is_file():
        run_job("prepare_manifest", f"--corpus={corpus}", f"--output={walk.digits.parent}", "--prepare.name=digits")
    if not walk.speech.is_file():
        rows = walk.folder / "speech.jsonl"
        write_english(speech, rows)
        run_job("prepare_manifest", f"--corpus={rows}", f"--output={walk.speech.parent}", "--prepare.name=speech")


def write_english(speech: Path, path: Path) -> None:
    """Write the English rows of ordinary speech as a corpus that declares its splits: by source, never by result."""
    lines = (speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["language"] == "en"]
    trained = [row["audio"] for row in rows if row["source"] == TRAINED_SOURCE]
    split = {audio: "validation" if i % _VALIDATION_EVERY == 0 else "train" for i, audio in enumerate(trained)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            one = {
                "id": Path(row["audio"]).stem,
                "audio": str((speech / row["audio"]).resolve()),
                "text": row["text"],
                "language": "en",
                "split": split.get(row["audio"], "test"),
            }
            file.write(json.dumps(one, ensure_ascii=False) + "\n")


def fine_tune(walk: Walk, *, recipe: Path, sizes: Sizes) -> None:
    """Fine-tune the base by the recipe; a run that was killed goes on.

    Raises:
        subprocess.CalledProcessError: the job failed; its own message stands above.
    """
    if (walk.run / RECORD_FILE).is_file() and walk.read_record().is_finished:
        logger.info("%s is trained", walk.run)
        return
    options = [] if sizes.max_steps is None else [f"--training.max-steps={sizes.max_steps}"]
    run_job(
        "train_whisper",
        f"--config={recipe}",
        "--data.manifest",
        str(walk.digits),
        str(walk.speech),
        f"--training.base={walk.model}",
        f"--output={walk.run}",
        *options,
    )


def export_models(walk: Walk, *, num_threads: int, models: Sequence[ModelName] = _MODELS) -> None:
    """Export models: the fine-tuned one through the gate on all test digits, the base with an open gate.

    Raises:
        subprocess.CalledProcessError: the job failed, as it does where the gate refuses int8.
    """
    gate: dict[ModelName, list[str]] = {
        "fine-tuned": [],
        "base": [f"--max-utterances={_SCORED_BY_OPEN_GATE}", f"--export.max-wer-rise={_OPEN_GATE}"],
    }
    for name in models:
        folders, options = walk.folders[name], gate[name]
        if not is_older(folders.export / "variants.json", folders.checkpoint):
            continue
        run_job(
            "export_model",
            f"--checkpoint={folders.checkpoint}",
            f"--manifest={walk.digits}",
            f"--output={folders.export}",
            "--normalizer=basic",
            f"--num-threads={num_threads}",
            *options,
        )


def convert_models(walk: Walk, *, models: Sequence[ModelName] = _MODELS) -> None:
    """Convert models for faster-whisper.

    Raises:
        CheckpointError: a model that cannot be loaded.
        subprocess.CalledProcessError: the converter failed.
    """
    for name in models:
        folders = walk.folders[name]
        if is_older(folders.converted / "model.bin", folders.checkpoint):
            convert_checkpoint(folders.checkpoint, folders.converted)


def is_older(path: Path, checkpoint: Path) -> bool:
    """Whether a file is missing, or was made before the checkpoint's weights."""
    if not path.is_file():
        return True
    return any(weights.stat().st_mtime > path.stat().st_mtime for weights in checkpoint.glob("*.safetensors"))


def run_job(name: str, *arguments: str) -> None:
    """Run a job in a process of its own, whose output is shown.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", f"jobs.{name}", *arguments]
    logger.info("%s", " ".join(command[1:]))
    subprocess.run(command, check=True)
