"""The commands of docs/cluster.md against a real head: token on, checkout shipped by jobs/runtime_env.yaml."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile
from ports import free_port, free_ports

from sottovoce.demo.speech import Voice, speak

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

RAY = str(Path(sys.executable).parent / "ray")
START_S = 60.0
SERVICE_START_S = 240.0  # replicas import torch, on a machine that may be busy
PROBE = """
import platform, ray, sottovoce

@ray.remote
def where():
    import jobs, platform, sottovoce
    return platform.system(), sottovoce.__file__, list(jobs.__path__)[0]

ray.init(log_to_driver=False)
print("driver", platform.system(), sottovoce.__file__)
print("worker", *ray.get(where.remote()))
"""


@dataclass(frozen=True)
class Head:
    """A running head node and what a client needs to reach it."""

    address: str
    """Of the dashboard."""
    gcs_address: str
    environment: dict[str, str]


def http_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code
    except OSError:
        return 0


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started."""
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head --block`: its own processes, and no others, are among its descendants."""
    home = tmp_path_factory.mktemp("home")
    ray_folder = Path("/tmp") / f"sottovoce-{os.getpid()}"  # short: a socket's path has at most 107 characters
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = inherited | {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    # As `. .venv/bin/activate` does: a job's "python" is looked up on the head's path.
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    port, dashboard, client, agent = free_ports(4)
    options = [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    options += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={ray_folder}", "--num-cpus=2"]
    options += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
    address = f"http://127.0.0.1:{dashboard}"
    with (home / "head.log").open("wb") as log:
        process = subprocess.Popen(
            [RAY, "start", "--head", "--block", *options], env=environment, stdout=log, stderr=log
        )
        deadline = time.monotonic() + START_S
        while http_status(address) == 0 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.5)
        yield Head(address, f"127.0.0.1:{port}", environment | {"RAY_ADDRESS": address})
        kill_tree(process)  # by SIGTERM it would wait half a minute for processes in which jobs have run
    shutil.rmtree(ray_folder, ignore_errors=True)


def submit(head: Head, root: Path, entrypoint: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", "--runtime-env", "jobs/runtime_env.yaml", "--", *entrypoint]
    return subprocess.run(
        command, cwd=root, env=head.environment | changes, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_submitted_job_finds_the_shipped_package_on_driver_and_worker(head: Head, root: Path) -> None:
    answer = submit(head, root, ["python", "-c", PROBE])
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = {
        line.split()[0]: line.split()[1:]
        for line in answer.stdout.splitlines()
        if line.startswith(("driver", "worker"))
    }
    assert "/py_modules_files/" in lines["driver"][1]
    assert "/py_modules_files/" in lines["worker"][1]
    assert "/working_dir_files/" in lines["worker"][2]


def test_without_the_token_nothing_can_be_submitted(head: Head, root: Path, tmp_path: Path) -> None:
    assert http_status(f"{head.address}/api/jobs/") in (401, 403)
    answer = submit(head, root, ["python", "-c", "print('hijacked')"], HOME=str(tmp_path), RAY_AUTH_MODE="disabled")
    assert answer.returncode != 0
    assert "hijacked" not in answer.stdout


SMALL = {
    "jobs.prepare_manifest": "",
    "jobs.train_whisper": " --training.max-steps 2 --data.batch-size 4 --training.base $TINY",
    "jobs.export_model": " --export.max-wer-rise 100",  # of a model of random weights
}
"""What the test adds to the commands, so that they take seconds."""


def submissions(readme: str) -> list[tuple[str, str]]:
    """(module, command line) of every ``ray job submit`` below the heading ``## On a cluster``."""
    section = readme.split("\n## On a cluster\n")[1].split("\n## ")[0]
    return re.findall(r"^(?=.*-m (jobs\.\w+))(ray job submit .*)$", section, re.MULTILINE)


def ask_dashboard(head: Head, path: str) -> Any:
    """What the dashboard answers to who holds the token."""
    token = (Path(head.environment["HOME"]) / ".ray" / "auth_token").read_text().strip()
    request = urllib.request.Request(head.address + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def write_corpus(folder: Path) -> None:
    folder.mkdir(parents=True)
    lines = ["file_name,text,split"]
    for index, split in enumerate(["train"] * 12 + ["validation"] * 4 + ["test"] * 4):
        soundfile.write(folder / f"{index}.wav", speak(f"Number {index}.", Voice(name="en-us")), 16_000)
        lines.append(f"{index}.wav,Number {index}.,{split}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def test_readmes_jobs_prepare_train_and_export_on_the_cluster(
    head: Head, root: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "audio")
    commands = submissions((root / "docs" / "cluster.md").read_text(encoding="utf-8"))
    assert [module for module, _ in commands] == list(SMALL)
    environment = head.environment | {"WORK": str(tmp_path), "TINY": str(tiny_checkpoint)}
    for module, command in commands:
        answer = subprocess.run(
            ["bash", "-c", command + SMALL[module]],
            cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert answer.returncode == 0, f"{module}\n{answer.stdout}\n{answer.stderr}"
        assert "succeeded" in answer.stdout
    record = json.loads((tmp_path / "whisper-mine" / "record.json").read_text())
    assert record["num_steps"] == 2
    assert (tmp_path / "whisper-mine" / "checkpoint" / "model.safetensors").is_file()
    assert set(json.loads((tmp_path / "export" / "variants.json").read_text())["variants"]) == {"fp32", "int8"}
    (run,) = ask_dashboard(head, "/api/train/v2/runs/v1")["train_runs"]
    assert run["status"] == "FINISHED"
    jobs = ask_dashboard(head, "/api/jobs/")
    assert {"SUCCEEDED"} == {job["status"] for job in jobs if job["type"] == "SUBMISSION"}


def test_the_documented_command_serves_although_the_environment_names_the_dashboard(
    head: Head, root: Path, tmp_path: Path
) -> None:
    (command,) = re.findall(
        r"^RAY_ADDRESS=auto (serve run .*)$", (root / "docs" / "cluster.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert head.environment["RAY_ADDRESS"].startswith("http://")
    port = free_port()
    settings = (root / "serve" / "config.yaml").read_text(encoding="utf-8").replace("port: 8000", f"port: {port}")
    settings = settings.replace(
        "models_folder: runs/models", "models_folder: none\n      embedded_until_promoted: true"
    )
    (tmp_path / "config.yaml").write_text(settings, encoding="utf-8")
    words = [str(tmp_path / "config.yaml") if word == "serve/config.yaml" else word for word in shlex.split(command)]
    # auto might find another Ray of this machine
    environment = head.environment | {"RAY_ADDRESS": head.gcs_address, "PYTHONPATH": f"{root / 'platform'}:{root}"}
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=root, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + SERVICE_START_S
        while http_status(f"http://127.0.0.1:{port}/readyz") != 200 and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "serve.log").read_text(encoding="utf-8")[-3000:]
            time.sleep(0.5)
        answered = http_status(f"http://127.0.0.1:{port}/readyz")
        kill_tree(process)  # the service itself ends with its head
    assert answered == 200, (tmp_path / "serve.log").read_text(encoding="utf-8")[-3000:]
