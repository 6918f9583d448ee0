"""Calls of an engine: batches, faulty windows, calls that hang."""

import asyncio
import threading

import numpy as np

from serve.engine import Engine, Window, warm_up
from sottovoce.errors import LanguageError
from sottovoce.model.audio_context import AudioContext
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
            if option.language == "xx":
                raise RuntimeError("a fault of the engine")
        return [
            WindowResult(text=str(len(window)), token_ids=(), language="en", avg_logprob=0.0, no_speech_prob=0.0)
            for window in windows
        ]


def window(num_samples: int, language: str = "en") -> Window:
    return Window(np.zeros(num_samples, np.int16), DecodeOptions(language=language))


def test_a_batch_is_one_call_in_order():
    recognizer = FakeRecognizer()
    results = asyncio.run(Engine().recognize(recognizer, [window(3), window(5)]))
    assert [result.text for result in results] == ["3", "5"]
    assert recognizer.batch_sizes == [2]


def test_one_faulty_window_does_not_fail_the_others_of_its_batch():
    first, second, third = asyncio.run(Engine().recognize(FakeRecognizer(), [window(3), window(4, "tlh"), window(5)]))
    assert (first.text, third.text) == ("3", "5")
    assert isinstance(second, LanguageError)


def test_a_fault_of_the_engine_harms_no_neighbour_either():
    first, second, third = asyncio.run(Engine().recognize(FakeRecognizer(), [window(3), window(4, "xx"), window(5)]))
    assert (first.text, third.text) == ("3", "5")
    assert isinstance(second, RuntimeError)


def test_warming_up_reads_the_longest_context():
    recognizer = FakeRecognizer()
    warm_up(recognizer)
    assert recognizer.batch_sizes == [1]


def test_a_call_that_hangs_shows_in_its_running_time():
    recognizer = FakeRecognizer()
    engine = Engine()
    assert engine.running_s() == 0.0

    async def look_while_running() -> float:
        recognizer.release.clear()
        running = asyncio.create_task(engine.recognize(recognizer, [window(3)]))
        await asyncio.sleep(0.05)
        seconds = engine.running_s()
        recognizer.release.set()
        await running
        return seconds

    assert asyncio.run(look_while_running()) > 0.0
    assert engine.running_s() == 0.0
