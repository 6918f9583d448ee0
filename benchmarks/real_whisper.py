"""What does fine-tuning bring real Whisper on real people?  ``python -m benchmarks.real_whisper --output FILE``.

whisper-base on connected digits of four people (Free Spoken Digit Dataset, 8 kHz): before, after fine-tuning with
trimmed contexts by our own jobs, exported to ONNX in fp32 and int8, and beside faster-whisper with the same weights.
Its stages resume where they were killed, and keep their rows in ``work``:

- ``base``: data and manifests; WER of the base model in torch, exported to int8, and by the peer, before any training.
- ``train``: data, manifests, fine-tuning by the recipe, exports (int8 through the gate), conversion for the peer.
- ``score``: WER with bootstrap intervals, on the test digits, and on ordinary English speech of sources no training
  step saw, where fine-tuning may have cost something (forgetting).
- ``speed``: all systems in turns with as many threads. It needs a machine that does nothing else.

What is fair: every digit in every text is written as its word before scoring, since stock Whisper writes numerals. All
systems know that the speech is English, decode greedily, and fall back to higher temperatures as Whisper does, which
saves stock Whisper from most texts that repeat themselves; faster-whisper is scored with its own five beams too.

What it does not show: the four people speak in training and test (the test's recordings are others), so it measures an
adaptation to known speakers, a known vocabulary and a known line.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from benchmarks.common import PACKAGES, Row, describe_machine, print_table, write_result
from benchmarks.real_scores import score_digits, score_speech, spell_digits
from benchmarks.real_speed import measure_speed
from benchmarks.real_walk import Sizes, Walk, convert_models, export_models, fine_tune, prepare_data
from benchmarks.recognized_texts import recognize_all
from benchmarks.whisper_systems import System
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.errors import ConfigError
from sottovoce.schema import Utterance

Stage: TypeAlias = Literal["base", "train", "score", "speed"]

QUESTION = "What do fine-tuning, int8 and trimmed contexts bring whisper-base on real people's digits, beside a peer?"
_SHARED = Path("../shared")
_VERSIONED = (*PACKAGES, "onnxruntime", "faster-whisper", "ctranslate2")
_NUM_EXAMPLES = 8
_NOT_SHOWN = ("substitutions", "deletions", "insertions", "repetitions", "load_1_min_before")  # they are in the file

_BASE = System(model="base", engine="sottovoce", variant="torch")
_BASE_INT8 = System(model="base", engine="sottovoce", variant="int8")
_BASE_PEER = System(model="base", engine="faster-whisper", variant="int8")
_BEFORE = (_BASE, _BASE_INT8, _BASE_PEER)
_TUNED = System(model="fine-tuned", engine="sottovoce", variant="torch")
_TUNED_INT8 = System(model="fine-tuned", engine="sottovoce", variant="int8")
_TUNED_PEER = System(model="fine-tuned", engine="faster-whisper", variant="int8")
_ON_DIGITS = (
    _BASE,
    _BASE_PEER,
    System(model="base", engine="faster-whisper", variant="int8", beam_size=5),
    _TUNED,
    System(model="fine-tuned", engine="sottovoce", variant="fp32"),
    _TUNED_INT8,
    _TUNED_PEER,
)
_ON_SPEECH = (_BASE, _BASE_PEER, _TUNED, _TUNED_INT8, _TUNED_PEER)


class RealWhisperBenchmark(Config):
    """Fine-tune real Whisper on real people, and measure it before and after, beside a peer."""

    output: Path
    """JSON file that receives the rows of all stages that have run."""
    stages: tuple[Stage, ...] = ("base", "train", "score", "speed")
    work: Path = Path("runs/real_whisper")
    """Folder that keeps data, models, texts and each stage's rows."""
    model: Path = _SHARED / "models" / "whisper-base"
    """The base checkpoint."""
    digits: Path = _SHARED / "data" / "fsdd"
    """Audio folder of single spoken digits, with train/ and test/."""
    speech: Path = _SHARED / "data" / "real"
    """Folder with ``manifest.jsonl`` of ordinary speech."""
    recipe: Path = Path("jobs/recipes/base_fsdd_cpu.yaml")
    num_train: int = Field(default=600, ge=1)
    """Utterances of digits, as are the next two."""
    num_validation: int = Field(default=40, ge=1)
    num_test: int = Field(default=100, ge=1)
    num_speech: int | None = Field(default=None, ge=1)
    """Ordinary recordings that are scored; all of the test sources when None."""
    max_steps: int | None = Field(default=None, ge=1)
    """Ends training earlier than the recipe."""
    score_threads: int = Field(default=2, ge=1)
    """Threads of one system while it is scored."""
    speed_threads: int = Field(default=1, ge=1)
    """Threads of each system while it is timed."""
    num_timed: int = Field(default=8, ge=1)
    """Test utterances that are timed, spread over all lengths."""
    repetitions: int = Field(default=5, ge=1)


def main(config: RealWhisperBenchmark) -> None:
    """Run the stages that are asked for, and write what is known after each."""
    setup_logging()
    require_peer()
    walk = Walk(config.work.resolve(), config.model.resolve())
    run = {"base": before, "train": train, "score": score, "speed": speed}
    for stage in config.stages:
        _keep(walk.folder / f"{stage}.json", run[stage](walk, config))
        write_known(walk.folder, config.output)


def require_peer() -> None:
    """Stop before minutes of training where the peer is not installed.

    Raises:
        ConfigError: faster-whisper is missing.
    """
    if find_spec("faster_whisper") is None:
        raise ConfigError("faster-whisper is missing: pip install -c constraints.txt -e '.[benchmarks]'")


def before(walk: Walk, config: RealWhisperBenchmark) -> list[Row]:
    """Return error rates of the base model on digits and ordinary speech."""
    prepare_data(walk, digits=config.digits, speech=config.speech, sizes=_sizes(config))
    export_models(walk, num_threads=config.score_threads, models=("base",))
    convert_models(walk, models=("base",))
    digits, speech = walk.test_digits(), walk.test_speech()[: config.num_speech]
    written = _recognize(walk, config, "digits", _BEFORE, digits)
    read = _recognize(walk, config, "speech", _BEFORE, speech)
    return [*score_digits(digits, written), *score_speech(speech, read, base=walk.model), *examples(digits, written)]


def _sizes(config: RealWhisperBenchmark) -> Sizes:
    return Sizes(
        num_train=config.num_train,
        num_validation=config.num_validation,
        num_test=config.num_test,
        max_steps=config.max_steps,
    )


def _recognize(
    walk: Walk, config: RealWhisperBenchmark, name: str, systems: Sequence[System], utterances: Sequence[Utterance]
) -> dict[System, list[str]]:
    """Recognize utterances by several systems; the texts are kept in the work folder."""
    return {
        system: recognize_all(
            system,
            utterances,
            folders=walk.folders,
            num_threads=config.score_threads,
            path=walk.folder / "texts" / name / f"{system.name}.json",
        )
        for system in systems
    }


def train(walk: Walk, config: RealWhisperBenchmark) -> list[Row]:
    """Make data and models; return what training and export recorded."""
    sizes = _sizes(config)
    prepare_data(walk, digits=config.digits, speech=config.speech, sizes=sizes)
    fine_tune(walk, recipe=config.recipe, sizes=sizes)
    export_models(walk, num_threads=config.score_threads)
    convert_models(walk)
    record = walk.read_record()
    table = json.loads((walk.folders["fine-tuned"].export / "variants.json").read_text(encoding="utf-8"))
    training: Row = {
        "what": "training",
        "method": record.training.method,
        "learning_rate": record.training.learning_rate,
        "audio_context_s": list(record.audio_context_s),
        "num_train": record.data.num_train,
        "train_hours": record.data.train_hours,
        "num_steps": record.num_steps,
        "best_step": record.best_step,
        "seconds": record.seconds,
        "step_s": record.step_s,
        "audio_s": record.audio_s,
    }
    sizes_mb = {name: one["size_bytes"] / 1e6 for name, one in table["variants"].items()}
    return [training, {"what": "export, MB", **sizes_mb}]


def score(walk: Walk, config: RealWhisperBenchmark) -> list[Row]:
    """Return error rates on digits and ordinary speech, and the first texts of each system."""
    digits, speech = walk.test_digits(), walk.test_speech()[: config.num_speech]
    written = _recognize(walk, config, "digits", _ON_DIGITS, digits)
    read = _recognize(walk, config, "speech", _ON_SPEECH, speech)
    return [
        *score_digits(digits, written),
        *score_speech(speech, read, base=walk.model),
        *examples(digits, {system: written[system] for system in (_BASE, _BASE_PEER, _TUNED_INT8)}),
    ]


def speed(walk: Walk, config: RealWhisperBenchmark) -> list[Row]:
    """Return seconds and ratios, on test utterances of all lengths."""
    ordered = sorted(walk.test_digits(), key=lambda one: one.duration_s)
    count = min(config.num_timed, len(ordered))
    chosen = [ordered[(2 * index + 1) * len(ordered) // (2 * count)] for index in range(count)]
    return measure_speed(chosen, walk.folders, num_threads=config.speed_threads, repetitions=config.repetitions)


def examples(utterances: Sequence[Utterance], texts: Mapping[System, Sequence[str]]) -> list[Row]:
    """Return the first utterances with what each system wrote, as scored and cut where it goes on and on."""
    return [
        {
            "what": "example",
            "said": one.text,
            **{system.name: spell_digits(written[index])[:120] for system, written in texts.items()},
        }
        for index, one in enumerate(utterances[:_NUM_EXAMPLES])
    ]


def write_known(folder: Path, output: Path) -> None:
    """Write and show the rows of all stages that have run, on the machine of the last of them."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in _stage_files(folder)]
    rows: list[Row] = [row for one in kept for row in one["rows"]]
    write_result(output, QUESTION, rows, machine=kept[-1]["machine"])
    for kind in dict.fromkeys(str(row["what"]).split(":")[0] for row in rows):
        found = [row for row in rows if str(row["what"]).split(":")[0] == kind]
        print_table(kind, [{name: row[name] for name in row if name not in _NOT_SHOWN} for row in found])


def _stage_files(folder: Path) -> list[Path]:
    paths = (folder / f"{stage}.json" for stage in ("base", "train", "score", "speed"))
    return [path for path in paths if path.is_file()]


def _keep(path: Path, rows: Sequence[Row]) -> None:
    kept = {"machine": describe_machine(_VERSIONED), "rows": [dict(row) for row in rows]}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(load_config(RealWhisperBenchmark))
