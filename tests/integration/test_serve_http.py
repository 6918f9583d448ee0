"""The whole service: Ray Serve, a random Whisper, and OpenAI's own client."""

import io
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import ray
import soundfile
from ray.util.state import list_actors

from serve.launch import start_service, stop_service
from serve.settings import Autoscaling, Limits, ServeConfig

pytestmark = pytest.mark.serve


def speech(duration_s: float, *, seed: int = 0, sampling_rate: int = 16_000, num_channels: int = 1) -> np.ndarray:
    """Bursts of noise of 0.8 s with pauses of 0.2 s, each recording its own: (S, C) float32."""
    num_samples = int(duration_s * sampling_rate)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(num_samples, num_channels)).astype(np.float32)
    noise[np.arange(num_samples) % sampling_rate >= 0.8 * sampling_rate] = 0.0
    return noise


def wav(samples: np.ndarray, *, sampling_rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def base_url(tiny_checkpoint: Path, local_ray: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ServeConfig(
        model=str(tiny_checkpoint),
        variant="torch",
        limits=Limits(max_body_bytes=2 * 2**20, max_duration_s=60.0),
        transcriber_scaling=Autoscaling(min_replicas=2, max_replicas=2),
    )
    yield start_service(config, port=port)
    stop_service()


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=60.0) as client:
        yield client


def transcribe(client: openai.OpenAI, data: bytes, **fields):
    return client.audio.transcriptions.create(file=("speech.wav", data), model="sottovoce", language="en", **fields)


def test_openais_client_reads_json_text_and_verbose_json(client):
    data = wav(speech(3.0))
    plain = transcribe(client, data)
    assert plain.text
    assert plain.usage.seconds == 3.0
    assert transcribe(client, data, response_format="text").strip() == plain.text
    verbose = transcribe(client, data, response_format="verbose_json", timestamp_granularities=["segment"])
    assert (verbose.text, verbose.language, verbose.duration) == (plain.text, "english", 3.0)
    (segment,) = verbose.segments
    assert segment.tokens
    assert segment.avg_logprob < 0.0
    assert 0.0 <= segment.no_speech_prob <= 1.0
    assert segment.compression_ratio > 0.0


def test_openais_client_lists_and_finds_models(client):
    assert [model.id for model in client.models.list()] == ["sottovoce", "whisper-1"]
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/nope")
    assert caught.value.code == "model_not_found"


def test_openais_client_raises_its_own_error_classes(client):
    data = wav(speech(1.0))
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(file=("a.wav", data), model="gpt-9")
    with pytest.raises(openai.BadRequestError) as caught:
        transcribe(client, data, response_format="srt")
    assert caught.value.param == "response_format"
    assert caught.value.request_id
    assert "," not in caught.value.request_id, "the id must stand once"
    with pytest.raises(openai.APIStatusError) as too_long:
        transcribe(client, wav(speech(61.0)))
    assert (too_long.value.status_code, too_long.value.code) == (413, "audio_too_long")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"just text, renamed .wav", 400),
        (wav(speech(1.0))[:1000], 400),
        (wav(np.zeros((0, 1), np.float32)), 400),
        (wav(np.full((1600, 1), np.nan, np.float32), subtype="FLOAT"), 400),
        (wav(speech(1.0, num_channels=8)), 200),
        (wav(speech(1.0, sampling_rate=96_000), sampling_rate=96_000), 200),
        (wav(np.zeros((16_000, 1), np.float32)), 200),
        (wav(speech(0.01)), 200),
    ],
    ids=["empty", "text", "truncated", "no-samples", "nan", "8-channels", "96-kHz", "silence", "10-ms"],
)
def test_bad_audio_is_a_400_and_odd_audio_is_heard(base_url, data, status):
    response = httpx.post(
        f"{base_url}/audio/transcriptions", files={"file": ("a.wav", data)}, data={"model": "sottovoce"}, timeout=60.0
    )
    assert response.status_code == status
    assert "error" in response.json() or "text" in response.json()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_the_limit_is_a_413_declared_or_not(base_url, is_chunked):
    request = httpx.Request("POST", "http://x", files={"file": ("a.wav", b"\0" * 8 * 2**20)}, data={"model": "m"})
    body = request.read()
    content = iter([body[start : start + 65_536] for start in range(0, len(body), 65_536)]) if is_chunked else body
    headers = {"content-type": request.headers["content-type"]}
    response = httpx.post(f"{base_url}/audio/transcriptions", content=content, headers=headers, timeout=60.0)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_long_audio_is_cut_into_windows_within_the_context(client):
    answer = transcribe(client, wav(speech(25.0)), response_format="verbose_json")
    assert len(answer.segments) >= 3
    assert all(segment.end - segment.start <= 10.0 for segment in answer.segments)
    assert "".join(segment.text for segment in answer.segments).strip() == answer.text


def test_requests_at_once_get_the_answers_they_get_alone(client):
    recordings = [wav(speech(1.0 + index % 5, seed=index)) for index in range(20)]
    alone = [transcribe(client, data).text for data in recordings]
    assert len(set(alone)) > 5, "answers this alike would hide a mix-up"
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda data: transcribe(client, data).text, recordings))
    assert together == alone


def test_real_speech_is_answered(client, shared_data):
    answer = transcribe(client, (shared_data / "jfk.flac").read_bytes(), response_format="verbose_json")
    assert answer.duration == pytest.approx(11.0, abs=0.01)


def test_requests_survive_the_death_of_a_transcriber(client):
    recordings = [wav(speech(9.0, seed=index)) for index in range(12)]
    alone = [transcribe(client, data).text for data in recordings]
    victim = transcriber_pids()[0]
    with ThreadPoolExecutor(12) as pool:
        pending = [pool.submit(lambda data=data: transcribe(client, data).text) for data in recordings * 3]
        time.sleep(0.3)  # both replicas have windows, and two thirds of the requests are still to come
        os.kill(victim, signal.SIGKILL)
        assert not all(answer.done() for answer in pending), "the replica died too late to matter"
        answers = [answer.result() for answer in pending]
    assert answers == alone * 3
    assert victim not in transcriber_pids()


def transcriber_pids() -> list[int]:
    """Processes of this test's own transcriber replicas."""
    own_ray = ray.get_runtime_context().gcs_address  # others may run on this machine
    actors = list_actors(address=own_ray, filters=[("state", "=", "ALIVE")])
    return [actor.pid for actor in actors if "Transcriber" in actor.class_name]
