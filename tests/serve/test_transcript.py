"""A recording on its way through windows that are decoded elsewhere, in any order, or not at all."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from spoken_numbers import Listener, SpokenNumbers, TimingListener, say

from serve.errors import OverloadedError
from serve.transcript import Transcription
from sottovoce.recognize.longform.chunked import ChunkedReader, plan_windows
from sottovoce.recognize.longform.segment import join_segments
from sottovoce.recognize.longform.sequential import SequentialReader
from sottovoce.recognize.longform.window import Reader, WindowRequest
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Pcm, WindowResult

WINDOW = 5 * SAMPLING_RATE
TIMED = DecodeOptions(timestamps=True)


@dataclass
class Transcribers:
    """Decode windows after a delay of their own; hold and fail those they are told to."""

    listener: Listener
    delays_s: Callable[[int], float] = lambda _: 0.0
    held: dict[int, asyncio.Event] = field(default_factory=dict)
    failing: dict[int, Exception] = field(default_factory=dict)
    num_sent: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    cancelled: list[int] = field(default_factory=list)

    async def send(self, pcm: Pcm, options: DecodeOptions) -> WindowResult:
        place, self.num_sent = self.num_sent, self.num_sent + 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delays_s(place))
            if place in self.held:
                await self.held[place].wait()
            if place in self.failing:
                raise self.failing[place]
        except asyncio.CancelledError:
            self.cancelled.append(place)
            raise
        finally:
            self.in_flight -= 1
        return self.listener.hear(self._find(pcm, options))

    def _find(self, pcm: Pcm, options: DecodeOptions) -> WindowRequest:
        """Return where in the recording a window is, from its first word."""
        samples = self.listener.spoken.recording.samples
        loud = np.flatnonzero(pcm)[0]
        first = int(np.flatnonzero(samples == pcm[loud])[0]) - int(loud)
        return WindowRequest(start=first, end=first + len(pcm), options=options)


def chunked(spoken: SpokenNumbers) -> Reader:
    windows = plan_windows(
        spoken.recording,
        spoken.spans,
        window_samples=WINDOW,
        shortest_samples=WINDOW // 2,
        before_samples=1600,
        after_samples=0,
    )
    return ChunkedReader(spoken.recording, TIMED, windows)


def sequential(spoken: SpokenNumbers) -> Reader:
    return SequentialReader(
        spoken.recording,
        TIMED,
        window_samples=WINDOW,
        shortest_samples=WINDOW // 2,
        follow_text=False,
        end_in_pauses=False,
    )


def hear(
    spoken: SpokenNumbers,
    reader: Reader,
    transcribers: Transcribers,
    steps: Callable[[Transcription], Awaitable[Any]],
    *,
    max_in_flight: int = 4,
) -> Any:
    """Run a test's steps over a recording."""

    async def main() -> Any:
        with ThreadPoolExecutor(2) as threads:
            return await steps(
                Transcription(
                    spoken.recording, reader, send=transcribers.send, max_in_flight=max_in_flight, threads=threads
                )
            )

    return asyncio.run(asyncio.wait_for(main(), timeout=30.0))


async def read_all(transcription: Transcription) -> str:
    transcript = await transcription.transcript()
    assert transcript.duration_s == transcription.duration_s
    return transcript.text


@pytest.mark.parametrize("make_reader", [chunked, sequential])
@pytest.mark.parametrize("listener_class", [Listener, TimingListener])
@pytest.mark.parametrize("seed", range(3))
def test_every_word_comes_once_in_order_however_long_windows_take(seed, listener_class, make_reader):
    spoken = say(60, seed=seed)
    random = np.random.default_rng(seed)
    transcribers = Transcribers(listener_class(spoken), delays_s=lambda _: float(random.uniform(0.0, 0.01)))
    assert hear(spoken, make_reader(spoken), transcribers, read_all) == spoken.text


def test_windows_are_decoded_side_by_side_up_to_the_limit():
    spoken = say(60, seed=0)
    transcribers = Transcribers(Listener(spoken), delays_s=lambda _: 0.02)
    hear(spoken, chunked(spoken), transcribers, read_all, max_in_flight=3)
    assert transcribers.most_in_flight == 3
    transcribers = Transcribers(TimingListener(spoken))
    hear(spoken, sequential(spoken), transcribers, read_all)
    assert transcribers.most_in_flight == 1


def test_segments_are_given_out_while_later_windows_are_still_decoded():
    spoken = say(60, seed=0)
    transcribers = Transcribers(Listener(spoken), held={2: asyncio.Event()})

    async def steps(transcription: Transcription) -> None:
        segments = transcription.segments()
        first = [await anext(segments), await anext(segments)]
        assert not transcribers.held[2].is_set()
        transcribers.held[2].set()
        rest = [segment async for segment in segments]
        assert join_segments([*first, *rest]) == spoken.text
        assert transcription.num_windows == transcribers.num_sent

    hear(spoken, chunked(spoken), transcribers, steps)


def test_who_stops_reading_takes_every_window_back():
    spoken = say(60, seed=0)
    transcribers = Transcribers(Listener(spoken), held={place: asyncio.Event() for place in range(1, 50)})

    async def steps(transcription: Transcription) -> None:
        segments = transcription.segments()
        await anext(segments)
        reading = asyncio.ensure_future(anext(segments))
        while transcribers.in_flight < 4:
            await asyncio.sleep(0.005)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert transcribers.in_flight == 0
        assert len(transcribers.cancelled) == 4

    hear(spoken, chunked(spoken), transcribers, steps)


def test_a_window_that_fails_ends_it_and_takes_the_others_back():
    spoken = say(60, seed=0)
    held = {place: asyncio.Event() for place in range(4)}
    transcribers = Transcribers(Listener(spoken), held=held, failing={1: OverloadedError(8)})

    async def fail_once_all_are_sent() -> None:
        while transcribers.num_sent < 4:
            await asyncio.sleep(0.005)
        held[1].set()

    async def steps(transcription: Transcription) -> None:
        failing = asyncio.create_task(fail_once_all_are_sent())
        with pytest.raises(OverloadedError):
            await transcription.transcript()
        await failing
        assert transcribers.in_flight == 0
        assert sorted(transcribers.cancelled) == [0, 2, 3]

    hear(spoken, chunked(spoken), transcribers, steps)


class SlowReader:
    """Finds its second window only after the first one's result was taken, while it is being asked."""

    language = "en"

    def __init__(self, spoken: SpokenNumbers) -> None:
        self._requests = [WindowRequest(start=0, end=spoken.recording.num_samples, options=TIMED)]
        self._taken = 0
        self._was_taken = threading.Event()
        self.is_asked_too_early = threading.Event()
        self.was_asked_late = False

    def next_window(self) -> WindowRequest | None:
        if self._requests:
            return self._requests.pop()
        if self._taken == 0:
            self.is_asked_too_early.set()
            self.was_asked_late = self._was_taken.wait(timeout=20.0)
        return None

    def take(self, request: WindowRequest, heard: WindowResult) -> list[Any]:
        self._taken += 1
        if self._taken == 1:
            self._requests.append(request)
            self._was_taken.set()
        return []


def test_a_reader_that_had_nothing_before_a_result_is_asked_again_after_it():
    spoken = say(4, seed=0)
    reader = SlowReader(spoken)
    transcribers = Transcribers(Listener(spoken), held={0: asyncio.Event()})

    async def answer_once_it_is_asked() -> None:
        while not reader.is_asked_too_early.is_set():
            await asyncio.sleep(0.005)
        transcribers.held[0].set()

    async def steps(transcription: Transcription) -> None:
        await asyncio.gather(read_all(transcription), answer_once_it_is_asked())

    hear(spoken, reader, transcribers, steps)
    assert reader.was_asked_late
    assert transcribers.num_sent == 2
