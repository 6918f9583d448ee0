"""How fast does a fine-tuning step go, beside Hugging Face's Seq2SeqTrainer with its defaults?

``python -m benchmarks.training --output FILE``. The same random-weight model, the same clips, the same batch and
precision; both read 30 s spectrograms in ``padded``, and in ``short`` (2 to 15 s, median 5) the peer goes on padding to
30 s, as it must, while we train at the length of the speech. Ours is the whole of ``run_training``: Ray Data decodes
FLAC on the same cores, two workers of Ray Train with one thread each draw log-mel and train. The peer is one process
with two threads, and its features lie ready in memory (see ``hf_trainer``). The first steps of each run do not count.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import ray
import torch
from pydantic import Field

from benchmarks.clips import Shape, Workload, draw_durations, save_random_model, write_clips
from benchmarks.common import Row, describe_machine, print_table, write_result
from benchmarks.flops import count_training_flops
from benchmarks.our_training import read_pace
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.manifest import write_manifest
from sottovoce.data.mixing import Speech
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.variants import RunDevice
from sottovoce.schema import Utterance
from sottovoce.train.config import Precision, TrainingConfig
from sottovoce.train.run import build_run, run_training

_CONTEXTS: dict[Workload, AudioContext] = {"padded": AudioContext(), "short": AudioContext(2.0, 15.0)}
_PADDED_FRAMES, _PADDED_TOKENS = 3_000, 80  # 29 s of dictation have about so many tokens
_BARS: dict[Workload, tuple[float, float]] = {"padded": (1.1, 1.25), "short": (2.5, 4.0)}

logger = logging.getLogger(__name__)


class TrainingBenchmark(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    shape: Shape = "tiny"
    workloads: tuple[Workload, ...] = ("padded", "short")
    repetitions: int = Field(default=5, ge=1)
    batch_size: int = Field(default=8, ge=2)
    """Of a step; ours divides it between two workers on the CPU, and has one on a GPU."""
    device: RunDevice = "cpu"
    """cuda takes one GPU."""
    precision: Precision = "fp32"
    """Of both systems."""
    peak_tflops: float | None = Field(default=None, gt=0.0)
    """What the device computes at most in this precision, from its data sheet: the share of it that ours reaches is
    then reported (model FLOPs utilization)."""
    num_steps: int = Field(default=8, ge=2)
    num_warmup_steps: int = Field(default=2, ge=1)
    """Of ``num_steps``, those before the clock starts."""
    seed: int = 0


def main(config: TrainingBenchmark) -> None:
    """Run the benchmark."""
    setup_logging()
    num_cpus = 2 if config.device == "cpu" else None  # a GPU's machine decodes with all it has
    ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
    rows = [measure(workload, config) for workload in config.workloads]
    ray.shutdown()
    machine = describe_machine() | ({"gpu": torch.cuda.get_device_name()} if config.device == "cuda" else {})
    write_result(config.output, "Speed of fine-tuning beside Hugging Face's Seq2SeqTrainer", rows, machine=machine)
    print_table("Training", rows)


def measure(workload: Workload, config: TrainingBenchmark) -> Row:
    """Time both in turns on one workload."""
    ours: list[float] = []
    peer: list[float] = []
    flops = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = write_clips(
            folder,
            draw_durations(workload, config.batch_size * config.num_steps, seed=config.seed),
            seed=config.seed,
        )
        write_manifest(clips, folder / "manifest.jsonl")
        save_random_model(folder / "model", config.shape, context=_CONTEXTS[workload], seed=config.seed)
        for repetition in range(config.repetitions):
            output = folder / f"run{repetition}"
            for system in ("ours", "peer")[:: 1 if repetition % 2 == 0 else -1]:
                if system == "ours":
                    ours.append(train_ours(clips, folder, output, workload, config))
                else:
                    peer.append(train_peer(folder, workload, config))
            logger.info("%s %d: ours %.2f, peer %.2f", workload, repetition, ours[-1], peer[-1])
        if workload == "padded":
            flops = count_training_flops(folder / "model", num_frames=_PADDED_FRAMES, num_tokens=_PADDED_TOKENS)
    unit = "samples_per_s" if workload == "padded" else "audio_s_per_s"
    ratios = np.array(ours) / np.array(peer)
    bar, reach = _BARS[workload]
    row: Row = {
        "workload": workload,
        "shape": config.shape,
        "batch_size": config.batch_size,
        f"ours_{unit}": float(np.median(ours)),
        f"peer_{unit}": float(np.median(peer)),
        "ratio": float(np.median(ratios)),
        "ratio_q1": float(np.percentile(ratios, 25)),
        "ratio_q3": float(np.percentile(ratios, 75)),
        "bar": bar,
        "reach": reach,
        "repetitions": config.repetitions,
        "num_steps": config.num_steps,
        "num_warmup_steps": config.num_warmup_steps,
        "precision": config.precision,
        "device": config.device,
    }
    return {**row, **_utilization(float(np.median(ours)), flops, config)}


def _utilization(samples_per_s: float, flops: int, config: TrainingBenchmark) -> Row:
    """Return the operations per second, and their share of what the device computes at most."""
    if not flops:
        return {}
    tflops = samples_per_s * flops / 1e12
    return {"tflops": tflops} | ({"mfu": tflops / config.peak_tflops} if config.peak_tflops else {})


def train_ours(
    clips: tuple[Utterance, ...], folder: Path, output: Path, workload: Workload, config: TrainingBenchmark
) -> float:
    """Return our samples or audio-seconds per second."""
    training = TrainingConfig(
        base=str(folder / "model"),
        device=config.device,
        precision=config.precision,
        learning_rate=1e-5,
        num_workers=_num_workers(config),
        max_steps=config.num_steps,
        num_epochs=1,
        evaluate_every_steps=1_000_000,
        log_every_steps=config.num_warmup_steps,
        trackers=(),
        seed=config.seed,
    )
    data = DatasetConfig(manifest=(folder / "manifest.jsonl",), batch_size=config.batch_size // _num_workers(config))
    stream = build_stream(Speech(manifests=(clips,), rejects=()), data)
    shortest = min(clips, key=lambda clip: clip.duration_s)
    run_training(build_run(training, train=stream, validation=[shortest], output=output))
    pace = read_pace(output, num_warmup_steps=config.num_warmup_steps)
    amount = config.batch_size * pace.num_steps if workload == "padded" else pace.audio_s
    return amount / pace.seconds


def _num_workers(config: TrainingBenchmark) -> int:
    return 2 if config.device == "cpu" else 1


def train_peer(folder: Path, workload: Workload, config: TrainingBenchmark) -> float:
    """Return the peer's samples or audio-seconds per second."""
    output = folder / "peer.json"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "benchmarks.hf_trainer", "--model", str(folder / "model")]
    command += ["--manifest", str(folder / "manifest.jsonl"), "--output", str(output)]
    command += ["--batch-size", str(config.batch_size), "--num-steps", str(config.num_steps)]
    command += ["--num-warmup-steps", str(config.num_warmup_steps), "--seed", str(config.seed)]
    command += ["--precision", config.precision, "--device", config.device]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    result = json.loads(output.read_text(encoding="utf-8"))
    return float(result["num_samples" if workload == "padded" else "audio_s"] / result["seconds"])


if __name__ == "__main__":
    main(load_config(TrainingBenchmark))
