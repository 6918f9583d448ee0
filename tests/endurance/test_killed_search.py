"""A search whose driver is killed goes on, and repeats no trial that had ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_search import read_search, read_trial, search_job, write_sixteen_tones

from sottovoce.config import write_config

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(1800)]

WAIT_S = 600.0


def test_a_search_goes_on_after_its_driver_was_killed(
    local_ray: str, tiny_checkpoint: Path, root: Path, tmp_path: Path
) -> None:
    output, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    write_config(search_job(write_sixteen_tones(tmp_path), tiny_checkpoint, output), recipe)
    command = [sys.executable, "-m", "jobs.search_hyperparameters", "--config", str(recipe)]
    environment = os.environ | {"RAY_ADDRESS": local_ray, "PYTHONPATH": f"{root / 'platform'}:{root}"}
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + WAIT_S
            while not read_trial(output, 1).get("rows"):
                assert first.poll() is None, (tmp_path / "first.log").read_text(encoding="utf-8")[-4_000:]
                assert time.monotonic() < deadline, "the second trial was never evaluated"
                time.sleep(0.05)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    finished = read_trial(output, 0)
    assert finished["state"] == "finished"
    assert not (output / "search.json").exists()

    second = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert second.returncode == 0, second.stderr[-4_000:]
    assert "searching: 2 trials, 1 ended before, 1 at a time" in second.stderr
    assert read_trial(output, 0) == finished, "a trial that had ended was run again"
    record = read_search(output)
    assert not list(output.glob("trials/*/checkpoints/*")), "checkpoints of trials that have ended were left"
    assert [trial.state for trial in record.trials] == ["finished", "pruned"]
    assert [[row.step for row in trial.rows] for trial in record.trials] == [[0, 6, 12, 18], [0, 6, 12]]
    assert record.best == 0
    assert "best: trial 0" in second.stdout
