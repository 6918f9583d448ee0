"""Training on a real Ray: it ends with all outputs, through the death of a worker and of the driver."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tone_training import WAIT_S, kill_one_training_worker, read_record, tone_job, wait_for_step
from transformers import WhisperForConditionalGeneration

from jobs.train_whisper import main
from sottovoce.config import Config, write_config
from sottovoce.errors import PrecisionUnavailableError
from sottovoce.model.checkpoint import load_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_a_run_ends_with_checkpoint_record_card_settings_and_curves(
    local_ray: str, tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tones"
    masks = {"num_time_masks": 1, "num_mel_masks": 1}
    main(tone_job(tones, tiny_checkpoint, output, spec_augment=masks, learning_rate=1e-3, audio_context_s=(1.0, 6.0)))
    record = read_record(output)
    assert [row.step for row in record.rows] == [0, 3, 6]
    assert [row.epoch for row in record.rows] == [0.0, 1.0, 2.0]
    assert record.rows[0].training_loss is None
    assert record.rows[2].validation_loss < record.rows[0].validation_loss
    assert record.best.wer == min(row.wer for row in record.rows)
    assert record.resumed_at == ()
    assert (record.data.num_train, record.data.num_validation, record.data.num_speakers) == (12, 4, 2)
    checkpoint = load_checkpoint(output / "checkpoint")
    assert (checkpoint.context.min_s, checkpoint.context.max_s) == (1.0, 6.0)
    assert checkpoint.model.generation_config.to_dict()["language"] == "en"
    assert checkpoint.model.generation_config.to_dict()["task"] == "transcribe"
    assert WhisperForConditionalGeneration.from_pretrained(output / "checkpoint").config.use_cache
    assert ModelCard.load(output / "checkpoint" / "README.md").data.model_name == "tones"
    assert list((output / "tensorboard").rglob("events.out.tfevents.*"))
    assert (output / "train_whisper.yaml").is_file()
    assert "training, logged" in (output / "report.html").read_text(encoding="utf-8")


def test_a_run_whose_worker_is_killed_resumes_by_itself_and_ends(
    local_ray: str, tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = tone_job(tones, tiny_checkpoint, tmp_path / "out", num_epochs=20, evaluate_every_steps=15)
    killed: list[int] = []

    def kill() -> None:
        wait_for_step(job.output, 0)
        time.sleep(random.uniform(0.0, 1.0))
        killed.append(kill_one_training_worker())

    killer = threading.Thread(target=kill)
    killer.start()
    main(job)
    killer.join()
    record = read_record(job.output)
    assert killed
    assert len(record.resumed_at) == 1
    assert [row.step for row in record.rows] == [0, 15, 30, 45, 60]
    assert load_checkpoint(job.output / "checkpoint").languages


def test_the_same_command_goes_on_after_its_driver_was_killed(
    local_ray: str, tones: Path, tiny_checkpoint: Path, root: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    output = tmp_path / "out"
    write_recipe(
        tone_job(tones, tiny_checkpoint, output, num_epochs=20, evaluate_every_steps=30, save_every_steps=4), recipe
    )
    command = [sys.executable, "-m", "jobs.train_whisper", "--config", str(recipe)]
    environment = os.environ | {"RAY_ADDRESS": local_ray, "PYTHONPATH": f"{root / 'platform'}:{root}"}
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
        try:
            wait_for_step(output, 4)
            assert first.poll() is None, "the run was over before it could be killed"
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    assert not (output / "record.json").exists()
    second = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert second.returncode == 0, second.stderr[-4_000:]
    record = read_record(output)
    assert record.resumed_at
    assert record.resumed_at[0] >= 4
    assert [row.step for row in record.rows] == [0, 30, 60]


def write_recipe(job: Config, path: Path) -> None:
    write_config(job, path)


def test_fp16_without_a_gpu_is_refused_before_anything_starts(
    tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = tone_job(tones, tiny_checkpoint, tmp_path / "out", precision="fp16")
    with pytest.raises(PrecisionUnavailableError, match="'fp16' needs a CUDA device"):
        main(job)
    assert not job.output.exists()
