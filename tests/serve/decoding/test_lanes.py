"""Short recordings are decoded before long ones, within the budget, and released with their request."""

import asyncio
import gc
import io
import threading
import weakref

import numpy as np
import pytest
from fake_transcriber import wav
from in_process_decoder import InProcessDecoder

from serve.decoding.lanes import Decoders
from serve.decoding.memory import BYTES_PER_S, DecodedAudio, DecodedBudget
from serve.errors import DecodedAudioError, OverloadedError
from serve.settings import Limits

SHORT_S = 2.0


def file(duration_s: float) -> io.BytesIO:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (round(duration_s * 16_000), 1))
    return io.BytesIO(wav(noise.astype(np.float32)))


class HeldDecoder(InProcessDecoder):
    """Decodes a long recording only once it is let go, or killed."""

    def __init__(self, *, yields: bool, silence_s: int) -> None:
        super().__init__()
        self.is_long = yields
        self.has_begun = threading.Event()
        self.let_go = threading.Event()
        made.append(self)

    def decode(self, data, job, sink):
        if self.is_long:
            self.has_begun.set()
            assert self.let_go.wait(30.0)
        return super().decode(data, job, sink)

    def kill(self) -> None:
        super().kill()
        self.let_go.set()


made: list[HeldDecoder] = []


@pytest.fixture
def decoders(monkeypatch):
    monkeypatch.setattr("serve.decoding.lanes.DecoderProcess", HeldDecoder)
    made.clear()
    limits = Limits(short_audio_s=SHORT_S, max_duration_s=30.0, max_decoded_bytes=round(60 * BYTES_PER_S))
    decoders = Decoders(limits)
    yield decoders
    decoders.close()


async def duration(decoders: Decoders, duration_s: float) -> float:
    async with decoders.decoded(file(duration_s)) as decoded:
        assert decoded.is_long == (duration_s > SHORT_S)
        return decoded.recording.duration_s


async def until(condition) -> None:
    async with asyncio.timeout(30.0):
        while not condition():
            await asyncio.sleep(0.005)


def long_decoders() -> list[HeldDecoder]:
    return [decoder for decoder in made if decoder.is_long]


def test_short_recordings_pass_while_long_ones_are_decoded(decoders):
    async def main() -> None:
        waiting = [asyncio.create_task(duration(decoders, 10.0)) for _ in range(3)]
        await until(lambda: long_decoders() and long_decoders()[0].has_begun.is_set())
        assert [await duration(decoders, 1.0) for _ in range(5)] == [1.0] * 5
        assert not any(task.done() for task in waiting)
        long_decoders()[0].let_go.set()
        assert await asyncio.gather(*waiting) == [10.0] * 3

    asyncio.run(main())


def test_a_recording_of_middle_length_takes_one_more_lane_and_is_short(monkeypatch):
    monkeypatch.setattr("serve.decoding.lanes._FIRST_S", 1.0)
    monkeypatch.setattr("serve.decoding.lanes.DecoderProcess", HeldDecoder)
    made.clear()
    decoders = Decoders(Limits(short_audio_s=SHORT_S, num_decoders=1))
    assert asyncio.run(duration(decoders, 0.5)) == 0.5
    assert len(made) == 1
    assert asyncio.run(duration(decoders, 1.5)) == 1.5
    assert (len(made), long_decoders(), decoders.num_bytes) == (2, [], 0)
    decoders.close()


def test_who_leaves_while_a_long_recording_is_decoded_stops_its_decoder(decoders):
    async def main() -> None:
        waiting = asyncio.create_task(duration(decoders, 10.0))
        await until(lambda: long_decoders() and long_decoders()[0].has_begun.is_set())
        assert decoders.num_bytes >= 10.0 * BYTES_PER_S
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert long_decoders()[0].num_kills == 1
        assert decoders.num_bytes == 0

    asyncio.run(main())


def test_long_recordings_above_the_budget_are_refused_and_short_ones_find_room(decoders):
    async def main() -> None:
        long_s = [asyncio.create_task(duration(decoders, 20.0)) for _ in range(4)]
        await until(lambda: sum(task.done() for task in long_s) == 2)
        refused = [task for task in long_s if task.done()]
        assert all(isinstance(task.exception(), DecodedAudioError) for task in refused)
        assert await duration(decoders, 1.0) == 1.0
        long_decoders()[0].let_go.set()
        await asyncio.gather(*long_s, return_exceptions=True)
        assert decoders.num_bytes == 0

    asyncio.run(main())


def test_samples_are_gone_when_the_block_is_left_also_without_the_collector_and_with_a_reference(decoders):
    async def main() -> None:
        async with decoders.decoded(file(1.0)) as decoded:
            samples = weakref.ref(decoded.recording.samples)
            assert samples() is not None
        assert samples() is None
        assert decoded.recording.num_samples == 0
        assert decoders.num_bytes == 0

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_the_budget_counts_what_was_expected_until_all_is_there():
    budget = DecodedBudget(1_000_000)
    audio = DecodedAudio(budget, is_long=True, expected_s=10.0)
    assert budget.num_bytes == 10 * BYTES_PER_S
    with pytest.raises(OverloadedError, match="1000000 bytes"):
        DecodedAudio(budget, is_long=True, expected_s=15.0)
    audio.append(bytes(11 * BYTES_PER_S))
    assert budget.num_bytes == 11 * BYTES_PER_S
    audio.clear()
    audio.append(bytes(BYTES_PER_S))
    assert len(audio.samples()) == 16_000
    assert budget.num_bytes == BYTES_PER_S
    audio.release()
    audio.release()
    assert budget.num_bytes == 0
    audio.append(b"ab")
    assert budget.num_bytes == 0
