"""The engine of a replica: batches, windows that leave them, faulty windows, steps that hang, pauses."""

import asyncio
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from serve.engine import Engine
from serve.window import Window
from sottovoce.errors import LanguageError
from sottovoce.recognize.steps import BatchDecoding, Step
from sottovoce.schema import DecodeOptions, WindowResult


class FakeRecognizer:
    """Writes a window's length, one token a step, as many as it may; knows no Klingon."""

    def __init__(self, *, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.batch_sizes: list[int] = []
        self.ended: list[int] = []
        self.release = threading.Event()
        self.release.set()

    def decode_in_steps(self, windows, options) -> list[BatchDecoding]:
        if any(option.language == "tlh" for option in options):
            raise LanguageError("tlh")
        self.batch_sizes.append(len(windows))
        return [BatchDecoding(tuple(range(len(windows))), self._decode(windows, options))]

    def _decode(self, windows, options) -> Iterator[Step]:
        self.release.wait(5.0)
        yield Step({}, 0)
        for count in range(1, 1 + max(option.max_new_tokens for option in options)):
            time.sleep(self.step_s)
            if any(option.language == "xx" for option in options):
                raise RuntimeError("a fault of the engine")
            ended = {index: result(windows[index]) for index, one in enumerate(options) if one.max_new_tokens == count}
            self.ended += [len(windows[index]) for index in ended]
            yield Step(ended, count)


def result(window) -> WindowResult:
    return WindowResult(text=str(len(window)), token_ids=(), language="en", avg_logprob=0.0, no_speech_prob=0.0)


def window(num_samples: int, language: str = "en", *, num_tokens: int = 2) -> Window:
    return Window(np.zeros(num_samples, np.int16), DecodeOptions(language=language, max_new_tokens=num_tokens))


def engine_of(recognizer: FakeRecognizer, *, max_batch_size: int = 8) -> Engine:
    return Engine({"m": recognizer}.get, max_batch_size=max_batch_size, batch_wait_timeout_s=0.02)


def decode(recognizer: FakeRecognizer, *windows: Window, max_batch_size: int = 8) -> list[str | Exception]:
    async def run() -> list[str | Exception]:
        engine = engine_of(recognizer, max_batch_size=max_batch_size)
        found = await asyncio.gather(*(engine.decode("m", one) for one in windows), return_exceptions=True)
        return [one if isinstance(one, Exception) else one.text for one in found]

    return asyncio.run(run())


def test_windows_that_come_together_are_decoded_together() -> None:
    recognizer = FakeRecognizer()
    assert decode(recognizer, window(3), window(5)) == ["3", "5"]
    assert recognizer.batch_sizes == [2]


def test_no_more_windows_begin_together_than_allowed() -> None:
    recognizer = FakeRecognizer()
    assert decode(recognizer, *[window(size) for size in range(1, 8)], max_batch_size=3) == list("1234567")
    assert recognizer.batch_sizes == [3, 3, 1]


def test_a_window_is_answered_when_its_own_text_has_ended() -> None:
    recognizer = FakeRecognizer(step_s=0.001)

    async def run() -> bool:
        engine = engine_of(recognizer)
        long = asyncio.create_task(engine.decode("m", window(9, num_tokens=400)))
        await engine.decode("m", window(3))
        await engine.decode("m", window(4))
        is_running = not long.done()
        await long
        return is_running

    assert asyncio.run(run())
    assert recognizer.ended == [3, 4, 9]


def test_a_long_text_does_not_hold_up_those_that_come_after_it() -> None:
    recognizer = FakeRecognizer(step_s=0.002)

    async def run() -> None:
        engine = engine_of(recognizer)
        long = asyncio.create_task(engine.decode("m", window(999, num_tokens=440)))
        await asyncio.sleep(0.2)  # it is long by now
        for size in range(5):
            await engine.decode("m", window(size, num_tokens=10))
        assert not long.done()
        await long

    asyncio.run(run())
    assert recognizer.ended == [0, 1, 2, 3, 4, 999]


def test_clients_that_wait_for_their_answers_get_full_batches() -> None:
    recognizer = FakeRecognizer(step_s=0.001)

    async def client(engine: Engine, number: int) -> None:
        for round_number in range(6):
            await engine.decode("m", window(8, num_tokens=5 + (3 * number + round_number) % 20))

    async def run() -> None:
        engine = engine_of(recognizer)
        await asyncio.gather(*(client(engine, number) for number in range(8)))

    asyncio.run(run())
    assert recognizer.batch_sizes == [8] * 6


@pytest.mark.parametrize(("language", "error"), [("tlh", LanguageError), ("xx", RuntimeError)])
def test_one_faulty_window_does_not_fail_the_others_of_its_batch(language: str, error: type[Exception]) -> None:
    first, second, third = decode(FakeRecognizer(), window(3), window(4, language), window(5))
    assert (first, third) == ("3", "5")
    assert isinstance(second, error)


def test_a_window_whose_caller_has_left_is_not_decoded() -> None:
    recognizer = FakeRecognizer(step_s=0.001)

    async def run() -> None:
        engine = engine_of(recognizer)
        running = asyncio.create_task(engine.decode("m", window(1, num_tokens=440)))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(engine.decode("m", window(2)))
        await asyncio.sleep(0)
        waiting.cancel()
        running.cancel()
        assert (await engine.decode("m", window(3))).text == "3"

    asyncio.run(run())
    assert recognizer.ended == [3]


def test_a_model_that_is_not_loaded_any_more_is_said_so() -> None:
    async def run() -> WindowResult | None:
        return await engine_of(FakeRecognizer()).decode("gone", window(3))

    assert asyncio.run(run()) is None


def test_nothing_is_decoded_in_a_pause_and_it_waits_for_what_is_running() -> None:
    recognizer = FakeRecognizer(step_s=0.001)

    async def run() -> None:
        engine = engine_of(recognizer)
        running = asyncio.create_task(engine.decode("m", window(1, num_tokens=100)))
        await asyncio.sleep(0.05)
        later = asyncio.create_task(engine.decode("m", window(2)))
        async with engine:
            assert running.done()
            await asyncio.sleep(0.1)
            assert not later.done()
        assert (await later).text == "2"

    asyncio.run(run())


def test_a_step_that_hangs_shows_in_its_running_time() -> None:
    recognizer = FakeRecognizer()

    async def look_while_running() -> float:
        engine = engine_of(recognizer)
        assert engine.running_s() == 0.0
        recognizer.release.clear()
        running = asyncio.create_task(engine.decode("m", window(3)))
        await asyncio.sleep(0.1)
        seconds = engine.running_s()
        recognizer.release.set()
        await running
        assert engine.running_s() == 0.0
        return seconds

    assert asyncio.run(look_while_running()) > 0.0
