"""What a real service refuses for want of a key or of room, and the classes OpenAI's client makes of it."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from fake_transcriber import speech, wav
from real_service import running_service, transcriber_pids
from service_keys import API_KEYS, KEYS_VARIABLE

from serve.settings import Autoscaling, Limits, ServeConfig

pytestmark = pytest.mark.serve

TIMEOUT_S = 60.0
SOUND = wav(speech(1.0))


@pytest.fixture(scope="module")
def base_url(micro_assets: Path, local_ray: str) -> Iterator[str]:
    """One request at a time, and one open request for each key."""
    limits = Limits(max_concurrent_requests=1, max_requests_per_key=1)
    config = ServeConfig(
        model=str(micro_assets),
        variant="torch",
        api_keys_env=KEYS_VARIABLE,
        limits=limits,
        gateway_scaling=Autoscaling(),  # each gateway counts for itself
    )
    with running_service(config) as url:
        yield url


def transcribe(base_url: str, key: str) -> str:
    with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S) as client:
        return client.audio.transcriptions.create(file=("a.wav", SOUND), model="sottovoce", language="en").text


@contextmanager
def stopped_transcriber() -> Iterator[None]:
    """Stand the only replica still, so that a request which was let in stays inside."""
    (pid,) = transcriber_pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def first_refusal(base_url: str, keys: tuple[str, str]) -> openai.APIStatusError:
    """Send two requests at once where there is room for one; the one that was let in is answered in the end."""
    with ThreadPoolExecutor(2) as pool:
        with stopped_transcriber():
            answers = {pool.submit(transcribe, base_url, key) for key in keys}
            done, pending = wait(answers, timeout=TIMEOUT_S, return_when=FIRST_COMPLETED)
            assert (len(done), len(pending)) == (1, 1)
        assert isinstance(pending.pop().result(), str)
    refused = done.pop().exception()
    assert isinstance(refused, openai.APIStatusError)
    return refused


def test_without_an_accepted_key_it_is_an_authentication_error(base_url):
    with pytest.raises(openai.AuthenticationError) as caught:
        transcribe(base_url, "third-key")
    assert (caught.value.code, caught.value.response.headers["www-authenticate"]) == ("invalid_api_key", "Bearer")
    assert caught.value.request_id
    assert isinstance(transcribe(base_url, API_KEYS[0]), str)


def test_a_key_with_as_many_open_requests_as_it_may_have_meets_a_rate_limit(base_url):
    refused = first_refusal(base_url, (API_KEYS[0], API_KEYS[0]))
    assert isinstance(refused, openai.RateLimitError)
    assert (refused.code, refused.response.headers["retry-after"]) == ("rate_limit_exceeded", "1")
    assert refused.request_id


def test_a_service_without_room_is_a_503_that_says_when_to_come_back(base_url):
    refused = first_refusal(base_url, API_KEYS)
    assert isinstance(refused, openai.InternalServerError)
    assert (refused.status_code, refused.code) == (503, "overloaded")
    assert refused.response.headers["retry-after"] == "1"
    assert refused.request_id


def test_with_its_retries_openais_client_gets_through(base_url):
    with (
        ThreadPoolExecutor(2) as pool,
        openai.OpenAI(base_url=base_url, api_key=API_KEYS[1], max_retries=8, timeout=TIMEOUT_S) as client,
    ):
        ask = client.audio.transcriptions.create
        answers = [pool.submit(ask, file=("a.wav", SOUND), model="sottovoce", language="en") for _ in range(2)]
        assert answers[0].result().text == answers[1].result().text


def test_readiness_is_a_503_while_the_transcriber_stands_still(base_url):
    ready = base_url.removesuffix("/v1") + "/readyz"
    with stopped_transcriber():
        response = httpx.get(ready, timeout=TIMEOUT_S)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
    deadline = time.monotonic() + TIMEOUT_S
    while httpx.get(ready, timeout=TIMEOUT_S).status_code != 200:
        assert time.monotonic() < deadline
