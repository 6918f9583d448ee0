"""What does Ray Train cost a step, beside torchrun with the same step?

``python -m benchmarks.launchers --output FILE``. Workers of one thread each, gloo, the same random-weight model and the
same batch from memory. Ray's side is the whole of ``run_training``, with heartbeats, progress and metrics; torchrun
runs prefetch, collator and step alone (``torchrun_worker``). The first steps of each run do not count.
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
from pydantic import Field

from benchmarks.clips import Shape, save_random_model, write_clips
from benchmarks.common import print_table, write_result
from benchmarks.our_training import ToneStream, read_pace
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.model.audio_context import AudioContext
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.run import build_run, run_training, worker_environment

logger = logging.getLogger(__name__)


class LauncherBenchmark(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    shape: Shape = "micro"
    num_workers: int = Field(default=2, ge=1)
    repetitions: int = Field(default=7, ge=1)
    batch_size: int = Field(default=4, ge=1)
    """Of each worker."""
    duration_s: float = Field(default=5.0, gt=0.0)
    """Of the recording."""
    num_steps: int = Field(default=60, ge=2)
    num_warmup_steps: int = Field(default=10, ge=1)
    """Of ``num_steps``, those before the clock starts."""
    seed: int = 0


def main(config: LauncherBenchmark) -> None:
    """Run the benchmark."""
    setup_logging()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (recording,) = write_clips(folder, [config.duration_s], seed=config.seed)
        context = AudioContext(config.duration_s, config.duration_s)
        save_random_model(folder / "model", config.shape, context=context, seed=config.seed)
        (folder / "recording.json").write_text(recording.model_dump_json(), encoding="utf-8")
        for repetition in range(config.repetitions):
            runs = [("ray", ours), ("torchrun", peer)]
            for launcher, seconds in runs[:: 1 if repetition % 2 == 0 else -1]:
                step_s = (
                    run_ray(recording, folder, repetition, config)
                    if launcher == "ray"
                    else run_torchrun(folder, config)
                )
                seconds.append(step_s)
            logger.info("%d: Ray Train %.4f s, torchrun %.4f s", repetition, ours[-1], peer[-1])
    ray.shutdown()
    row = {
        "shape": config.shape,
        "num_workers": config.num_workers,
        "batch_size": config.num_workers * config.batch_size,
        "duration_s": config.duration_s,
        "ray_train_step_s": float(np.median(ours)),
        "torchrun_step_s": float(np.median(peer)),
        "slower": float(np.median(ours) / np.median(peer)) - 1.0,
        "slower_q1": float(np.percentile(np.array(ours) / np.array(peer), 25)) - 1.0,
        "slower_q3": float(np.percentile(np.array(ours) / np.array(peer), 75)) - 1.0,
        "bar": 0.03,
        "reach": 0.01,
        "repetitions": config.repetitions,
    }
    write_result(config.output, "Seconds of a step under Ray Train and under torchrun", [row])
    print_table("Launchers", [row])


def run_ray(recording: Utterance, folder: Path, repetition: int, config: LauncherBenchmark) -> float:
    """Return the seconds of a step under Ray Train."""
    training = TrainingConfig(
        base=str(folder / "model"),
        device="cpu",
        learning_rate=1e-5,
        num_workers=config.num_workers,
        max_steps=config.num_steps,
        evaluate_every_steps=1_000_000,
        log_every_steps=config.num_warmup_steps,
        trackers=(),
    )
    stream = ToneStream(recording, config.batch_size, config.num_steps)
    output = folder / f"run{repetition}"
    run_training(build_run(training, train=stream, validation=[recording], output=output))
    return read_pace(output, num_warmup_steps=config.num_warmup_steps).step_s


def run_torchrun(folder: Path, config: LauncherBenchmark) -> float:
    """Return the seconds of a step under torchrun."""
    output = folder / "torchrun.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(config.num_workers)]
    command += ["-m", "benchmarks.torchrun_worker", "--model", str(folder / "model")]
    command += ["--recording", str(folder / "recording.json"), "--output", str(output)]
    command += ["--batch-size", str(config.batch_size), "--num-steps", str(config.num_steps)]
    command += ["--num-warmup-steps", str(config.num_warmup_steps)]
    environment = os.environ | worker_environment("cpu") | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return float(json.loads(output.read_text(encoding="utf-8"))["step_s"])


if __name__ == "__main__":
    main(load_config(LauncherBenchmark))
