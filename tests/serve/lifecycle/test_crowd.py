"""Whom the proxy refuses itself, and when those who were refused come again."""

import asyncio

import pytest

from serve.lifecycle import crowd
from serve.lifecycle.crowd import Crowd, LargeBodies, Visit


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_requests_count_until_they_end():
    async def main() -> None:
        room = Crowd(2)
        first, second = Visit(room), Visit(room)
        assert room.is_full
        first.end()
        assert not room.is_full
        second.arrived()
        second.end()
        first.arrived()  # it was refused early, and read to its end all the same
        assert room.num_working == 0

    asyncio.run(main())


def test_a_slow_upload_counts_again_once_it_has_arrived(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crowd, "_UPLOADING_S", 0.02)

    async def main() -> list[int]:
        room = Crowd(2)
        slow, quick = Visit(room), Visit(room)
        quick.arrived()
        numbers = [room.num_working]
        await asyncio.sleep(0.1)
        numbers.append(room.num_working)
        slow.arrived()
        numbers.append(room.num_working)
        slow.end()
        quick.end()
        return [*numbers, room.num_working]

    assert asyncio.run(main()) == [2, 1, 2, 0]


def test_without_a_limit_only_a_gateways_refusal_closes_the_door_for_a_moment():
    clock = Clock()
    room = Crowd(None, clock=clock)
    assert not room.is_full
    room.note_refusal()
    assert room.is_full
    clock.now_s += 1.0
    assert not room.is_full


def test_refused_clients_come_back_one_after_the_other_at_the_pace_of_answers():
    clock = Clock()
    room = Crowd(1, clock=clock)
    for _ in range(20):
        room.note_answer()  # in ten seconds: two a second
    assert [room.retry_after_s() for _ in range(6)] == [1, 1, 2, 2, 3, 3]
    clock.now_s += 3.0
    assert room.retry_after_s() == 1, "all of them have come"
    clock.now_s += 60.0
    assert [room.retry_after_s() for _ in range(2)] == [1, 2], "none was answered for a while: one a second"


def test_old_answers_are_forgotten_although_nobody_is_refused():
    clock = Clock()
    room = Crowd(1, clock=clock)
    for _ in range(100):
        room.note_answer()
        clock.now_s += 1.0
    assert len(room._answered_at) <= 11


def test_nobody_waits_longer_than_openais_clients_do_and_not_all_come_at_once():
    room = Crowd(1, clock=Clock())
    waits = [room.retry_after_s() for _ in range(640)]
    assert waits[:30] == list(range(1, 31))
    assert {15, 20, 25, 30} <= set(waits[30:])
    assert (min(waits[30:]), max(waits)) == (15, 30)


def test_large_bodies_share_a_rate_and_small_ones_do_not_wait():
    async def main() -> tuple[float, float]:
        bodies = LargeBodies(bytes_per_s=10e6)
        loop = asyncio.get_running_loop()

        async def send(before: int) -> float:
            started = loop.time()
            for _ in range(4):
                await bodies.passing(250_000, before=before)
                before += 250_000
            return loop.time() - started

        large = [asyncio.create_task(send(2 * 2**20)) for _ in range(3)]
        small = await send(0)
        return small, max(await asyncio.gather(*large))

    small_s, large_s = asyncio.run(main())
    assert small_s < 0.2
    assert large_s > 0.25, "three megabytes at ten a second, the last part not waited for"
