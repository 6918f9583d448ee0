"""Packages that people use, against a real service: OpenAI's for Node, the AI SDK, LiteLLM and LangChain.

``make test-clients`` installs them below tests/clients. OpenAI's own package for Python is in test_serve_http.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import imageio_ffmpeg
import numpy as np
import openai
import pytest
import soundfile

from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.text.score import score_texts

pytestmark = pytest.mark.serve

CLIENTS = Path(__file__).resolve().parents[2] / "clients"
NODE_INSTALLED = CLIENTS / "node_modules" / ".installed"
PYTHON_INSTALLED = CLIENTS / ".venv" / ".installed"
NODE = shutil.which("node")
MAX_WER = 0.2  # against the text without these fields; as in test_documented_calls, where times are generated


@pytest.fixture(scope="module")
def environment(base_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the service and a recording are, and what OpenAI's own client reads in it."""
    path = tmp_path_factory.mktemp("clients") / "speech.wav"
    sentences = speak_timed(3, voices=UNSEEN_VOICES, max_s=9.0, seed=3)
    pause = np.zeros(8_000, np.float32)
    waveform = np.concatenate([part for one in sentences for part in (one.waveform, pause)])
    soundfile.write(path, waveform, 16_000)
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        text = client.audio.transcriptions.create(model="sottovoce", file=path).text
        timed = client.audio.transcriptions.create(model="sottovoce", file=path, response_format="verbose_json").text
    assert len(text.split()) > 5
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(path.parent),
        "SERVICE_URL": base_url,
        "SPEECH_FILE": str(path),
        "SPEECH_TEXT": text,
        "TIMED_TEXT": timed,  # micro leaves some words out when it generates timestamps
        "FFMPEG": imageio_ffmpeg.get_ffmpeg_exe(),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it fetches a list of prices
    }


def need(path: Path) -> None:
    """Skip where a client is not installed; in CI, which installs it, that is a failure."""
    if not path.exists():
        report = pytest.fail if os.environ.get("CI") else pytest.skip
        report(f"{path.relative_to(CLIENTS.parents[1])} is missing; make test-clients installs it")


@pytest.mark.skipif(NODE is None, reason="no Node on this machine")
@pytest.mark.parametrize("name", ["openai", "ai-sdk"])
def test_a_client_for_node(environment: dict[str, str], name: str):
    need(NODE_INSTALLED)
    command = [str(NODE), "--test", "--test-reporter=tap", f"{name}.test.js"]
    done = subprocess.run(command, cwd=CLIENTS, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# skipped 0" in done.stdout
    assert "# pass 0" not in done.stdout


def call(name: str, environment: dict[str, str]) -> dict:
    need(PYTHON_INSTALLED)
    command = [str(PYTHON_INSTALLED.with_name("bin") / "python"), str(CLIENTS / "python_clients.py"), name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_litellm(environment):
    answer = call("litellm", environment)
    assert answer["text"] == environment["TIMED_TEXT"]  # it asks for verbose_json, to learn the duration
    assert len(answer["words"]) > 5
    assert answer["duration_s"] > 5
    assert "temperature" in answer["refusal"]


def test_langchain(environment):
    answer = call("langchain", environment)
    assert answer["text"].split()[:3] == environment["SPEECH_TEXT"].split()[:3]  # it sends mp3
    assert answer["metadata"] == [{"source": environment["SPEECH_FILE"], "chunk": 0}]


@pytest.mark.parametrize(
    "fields",
    [
        {"beam_size": 3},
        {"vad_filter": False, "language": "en-GB"},
        {"without_timestamps": False, "language": "English"},
        {"without_timestamps": True, "best_of": 2, "seed": 7, "language": "auto"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_other_servers_fields_through_openais_client(base_url, environment, fields):
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        path = Path(environment["SPEECH_FILE"])
        text = client.audio.transcriptions.create(model="sottovoce", file=path, extra_body=fields).text
    assert score_texts([environment["SPEECH_TEXT"]], [text], normalizer="basic").wer.rate <= MAX_WER


def test_a_preflight_passes_through_serve(base_url):
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    response = httpx.options(f"{base_url}/audio/transcriptions", headers=asked)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "https://page.example")
