"""Windows and models on their way to replicas: what a replica raises arrives as it was raised there."""

import asyncio
from typing import Any

import numpy as np
import pytest
from fake_transcriber import FakeTranscriber
from ray.exceptions import RayTaskError

from serve.errors import ModelLoadError, ModelNotFoundError, TranscriberLostError
from serve.models.served_model import ServedModel
from serve.windows import describe_everywhere, send_window
from sottovoce.errors import LanguageError
from sottovoce.schema import DecodeOptions

SERVED = ServedModel(2.0, 10.0, {"en": "english"}, key="main@int8/2")


def raised_remotely(error: Exception) -> Exception:
    """An error as Ray hands it over: of the same class, and its text a traceback with where it was raised."""
    trace = 'File "/home/secret/replica.py", line 7'
    wrapped = RayTaskError("transcribe", trace, error, proctitle="replica", pid=4711, ip="10.0.0.1")
    dual: Exception = wrapped.as_instanceof_cause()
    assert isinstance(dual, type(error))
    assert "secret" in str(dual)
    return dual


class Everywhere:
    """A handle whose replicas answer a broadcast with what they are given."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers

    def broadcast(self, method_name: str, key: str) -> "Everywhere":
        assert (method_name, key) == ("prepare", SERVED.key)
        return self

    async def results_async(self, *, timeout_s=None, return_exceptions=False) -> list[Any]:
        assert return_exceptions
        return [*self.answers]


def describe(*answers: Any) -> ServedModel:
    return asyncio.run(describe_everywhere(Everywhere(*answers), SERVED.key))


def send(failure: Exception) -> None:
    transcriber = FakeTranscriber()
    transcriber.failures = [failure]
    asyncio.run(send_window(transcriber, np.zeros(16_000, np.int16), DecodeOptions(), model=SERVED))


@pytest.mark.parametrize("error", [LanguageError("tlh"), ModelLoadError("main", "damaged")], ids=lambda one: str(one))
def test_an_error_of_ours_arrives_without_the_replicas_traceback(error):
    with pytest.raises(type(error)) as caught:
        send(raised_remotely(error))
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))
    assert "secret" in str(caught.value.__cause__), "the log still says where it was raised"
    with pytest.raises(type(error)) as caught:
        describe(raised_remotely(error))
    assert str(caught.value) == str(error)


def test_an_error_that_is_not_ours_keeps_its_traceback_for_the_log():
    with pytest.raises(ZeroDivisionError, match="secret"):
        send(raised_remotely(ZeroDivisionError("by zero")))


def test_a_replica_that_cannot_load_a_model_does_not_hold_up_the_others():
    assert describe(raised_remotely(ModelLoadError("main", "no room")), SERVED) == SERVED


def test_a_model_that_one_replica_does_not_see_yet_is_not_there_yet():
    with pytest.raises(ModelNotFoundError) as caught:
        describe(SERVED, raised_remotely(ModelNotFoundError("main")), ConnectionError("died"))
    assert str(caught.value) == str(ModelNotFoundError("main"))


def test_without_any_replica_a_model_is_loaded_nowhere():
    with pytest.raises(TranscriberLostError):
        describe()
    with pytest.raises(ConnectionError):
        describe(ConnectionError("died"))
