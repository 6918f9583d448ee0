"""The engine replica's parts that need no replica: batches, health, and the settings."""

import asyncio
import pickle
import threading

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from serve import errors
from serve.settings import Autoscaling, ServeConfig
from serve.transcriber import BatchedRecognizer, Window
from sottovoce.errors import LanguageError, SottovoceError
from sottovoce.model.context import AudioContext
from sottovoce.schema import DecodeOptions, WindowResult


class FakeRecognizer:
    """Reads a window's length; knows no Klingon."""

    name = "fake"
    context = AudioContext(min_s=2.0, max_s=10.0)
    languages = ("en",)

    def __init__(self):
        self.batch_sizes = []
        self.release = threading.Event()
        self.release.set()

    def recognize(self, windows, options):
        self.batch_sizes.append(len(windows))
        self.release.wait(5.0)
        for option in options:
            if option.language == "tlh":
                raise LanguageError("tlh")
        return [
            WindowResult(text=str(len(window)), token_ids=(), language="en", avg_logprob=0.0, no_speech_prob=0.0)
            for window in windows
        ]


def window(num_samples: int, language: str = "en") -> Window:
    return Window(np.zeros(num_samples, np.int16), DecodeOptions(language=language))


def test_a_batch_is_one_call_in_order():
    recognizer = FakeRecognizer()
    results = asyncio.run(BatchedRecognizer(recognizer).recognize([window(3), window(5)]))
    assert [result.text for result in results] == ["3", "5"]
    assert recognizer.batch_sizes == [2]


def test_one_faulty_window_does_not_fail_the_others_of_its_batch():
    batches = BatchedRecognizer(FakeRecognizer())
    first, second, third = asyncio.run(batches.recognize([window(3), window(4, "tlh"), window(5)]))
    assert (first.text, third.text) == ("3", "5")
    assert isinstance(second, LanguageError)


def test_warming_up_reads_the_longest_context():
    recognizer = FakeRecognizer()
    BatchedRecognizer(recognizer).warm_up()
    assert recognizer.batch_sizes == [1]


def test_a_call_that_hangs_shows_in_its_running_time():
    recognizer = FakeRecognizer()
    batches = BatchedRecognizer(recognizer)
    assert batches.running_s() == 0.0

    async def look_while_running() -> float:
        recognizer.release.clear()
        running = asyncio.create_task(batches.recognize([window(3)]))
        await asyncio.sleep(0.05)
        seconds = batches.running_s()
        recognizer.release.set()
        await running
        return seconds

    assert asyncio.run(look_while_running()) > 0.0
    assert batches.running_s() == 0.0


def test_the_config_file_names_an_importable_app_with_valid_arguments(root):
    config = yaml.safe_load((root / "serve" / "config.yaml").read_text(encoding="utf-8"))
    (application,) = config["applications"]
    assert application["import_path"] == "serve.app:build_app"
    assert config["http_options"]["host"] == "127.0.0.1"
    service = ServeConfig.model_validate(application["args"])
    assert config["http_options"]["request_timeout_s"] > service.limits.deadline_s


def test_an_unknown_setting_and_a_crossed_range_are_refused():
    with pytest.raises(ValidationError):
        ServeConfig.model_validate({"modle": "x"})
    with pytest.raises(ValidationError, match="min_replicas"):
        Autoscaling(min_replicas=3, max_replicas=2)


def test_a_hub_id_stays_and_a_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert ServeConfig(model="model").resolved_model() == str(tmp_path / "model")
    assert ServeConfig(model="openai/whisper-tiny").resolved_model() == "openai/whisper-tiny"


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequestError("a {brace}", "file", "invalid_value"),
        errors.ModelNotFoundError("m"),
        errors.BodyTooLargeError(9),
        errors.UnauthorizedError(),
        errors.OverloadedError(9),
        errors.TranscriberLostError(3),
        errors.DeadlineError(9.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling_with_its_message(error: SottovoceError):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) != ""
