"""The service as a process of its own: what Ctrl-C answers, refuses and leaves behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from fake_transcriber import speech, wav
from ports import free_port

pytestmark = [pytest.mark.serve, pytest.mark.timeout(300)]

NUM_REQUESTS = 8
START_S = 120.0
EXIT_S = 30.0  # far above what it takes, so that only a hang fails


@pytest.fixture
def server(root, tmp_path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``python -m jobs.serve_model`` with the embedded model, when it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "jobs.serve_model", "--port", str(port), "--models-folder", str(tmp_path)]
    command += ["--quickstart-folder", str(tmp_path), "--gateway-scaling.min-replicas", "1"]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C stops it" in line:
                break
        yield process, f"http://127.0.0.1:{port}"
        process.kill()


def test_ctrl_c_answers_what_runs_refuses_what_comes_and_leaves_nothing_behind(server):
    process, root = server
    belonging = psutil.Process(process.pid).children(recursive=True)
    assert belonging
    recording = wav(speech(30.0))

    def send() -> int:
        body = {"files": {"file": ("a.wav", recording)}, "data": {"model": "whisper-1"}}
        return httpx.post(f"{root}/v1/audio/transcriptions", **body, timeout=120.0).status_code

    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        running = [pool.submit(send) for _ in range(NUM_REQUESTS)]
        time.sleep(0.5)
        assert not any(answer.done() for answer in running)
        process.send_signal(signal.SIGINT)
        refused = None
        while not all(answer.done() for answer in running):
            answer = httpx.get(f"{root}/v1/models", timeout=30.0)
            if answer.status_code != 200:
                refused = answer
                break
            time.sleep(0.05)
        statuses = [answer.result() for answer in running]
    answered = time.monotonic()
    assert statuses == [200] * NUM_REQUESTS
    assert refused is not None
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"]
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - answered <= EXIT_S
    _, alive = psutil.wait_procs(belonging, timeout=10.0)
    assert not alive
