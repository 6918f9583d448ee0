"""Who is let in, and which slow upload makes room."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from serve.errors import AddressLimitError, OverloadedError, RateLimitError, SlowUploadError
from serve.http import upload
from serve.http.admission import Admission
from serve.http.upload import Arrival

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(upload, "_SLOW_AFTER_S", 0.05)
    monkeypatch.setattr(upload, "_TRICKLING_AFTER_S", 0.01)
    monkeypatch.setattr(upload, "_GRACE_S", 0.2)
    monkeypatch.setattr(upload, "_TRICKLING_GRACE_S", 0.2)


def admit(*, max_uploads=4, max_per_client=None, has_keys=False, timeout_s=30.0, min_bytes_per_s=1.0) -> Admission:
    return Admission(
        max_uploads=max_uploads,
        max_working=2,
        max_per_client=max_per_client,
        has_keys=has_keys,
        arrive=lambda: Arrival(timeout_s=timeout_s, min_bytes_per_s=min_bytes_per_s),
    )


async def send_slowly(
    admission: Admission, client: str, *, bytes_each: int = 0, done: asyncio.Event | None = None
) -> None:
    """Send so many bytes every few milliseconds until it is done."""
    with admission.open(client) as coming:
        async with coming.awaited():
            while done is None or not done.is_set():
                coming.count(bytes_each)
                await asyncio.sleep(0.005)


async def all_of(tasks: list[asyncio.Task[None]]) -> list[BaseException | None]:
    return list(await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30.0))


def test_a_body_below_the_lowest_rate_and_one_after_its_time_end_with_408():
    async def main() -> None:
        slow = admit(min_bytes_per_s=1e9)
        (error,) = await all_of([asyncio.create_task(send_slowly(slow, "a", bytes_each=100))])
        assert isinstance(error, SlowUploadError)
        late = admit(timeout_s=0.1)
        (error,) = await all_of([asyncio.create_task(send_slowly(late, "a", bytes_each=10**6))])
        assert isinstance(error, SlowUploadError)
        done = asyncio.Event()
        quick = asyncio.create_task(send_slowly(admit(), "a", bytes_each=100, done=done))
        await asyncio.sleep(0.4)
        done.set()
        assert await all_of([quick]) == [None]

    asyncio.run(main())


def test_a_body_that_comes_in_small_pieces_must_reach_the_lowest_rate_sooner(monkeypatch):
    monkeypatch.setattr(upload, "_GRACE_S", 30.0)

    async def main() -> None:
        slow, done = admit(min_bytes_per_s=1e9), asyncio.Event()
        trickling = asyncio.create_task(send_slowly(slow, "a", bytes_each=100, done=done))
        waited_for = asyncio.create_task(send_slowly(slow, "a", bytes_each=4096, done=done))
        await asyncio.sleep(0.4)
        assert trickling.done()
        done.set()
        outcomes = await all_of([trickling, waited_for])
        assert [type(outcome) for outcome in outcomes] == [SlowUploadError, type(None)]

    asyncio.run(main())


def test_at_the_limit_the_slowest_upload_of_the_busiest_client_makes_room():
    async def main() -> None:
        room, done = admit(min_bytes_per_s=1e3), asyncio.Event()
        rates = [("a", 50), ("a", 10), ("a", 10**6), ("b", 1)]
        tasks = [asyncio.create_task(send_slowly(room, client, bytes_each=rate, done=done)) for client, rate in rates]
        await asyncio.sleep(0.1)
        late = asyncio.create_task(send_slowly(room, "c", bytes_each=100, done=done))
        await asyncio.sleep(0.02)
        done.set()
        outcomes = await all_of([*tasks, late])
        assert [type(outcome) for outcome in outcomes] == [type(None), SlowUploadError, *[type(None)] * 3]

    asyncio.run(main())


def test_uploads_that_have_just_begun_need_not_make_room():
    async def main() -> None:
        room, done = admit(max_uploads=2, min_bytes_per_s=1e6), asyncio.Event()
        tasks = [asyncio.create_task(send_slowly(room, "a", bytes_each=100, done=done)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="limit of 2"), room.open("b"):
            pass
        done.set()
        assert await all_of(tasks) == [None, None]
        with room.open("b"):
            pass

    asyncio.run(main())


@pytest.mark.parametrize(("has_keys", "error"), [(True, RateLimitError), (False, AddressLimitError)])
def test_one_client_has_its_own_limit(has_keys, error):
    async def main() -> None:
        room, done = admit(max_per_client=1, has_keys=has_keys, min_bytes_per_s=1e3), asyncio.Event()
        first = asyncio.create_task(send_slowly(room, "a", bytes_each=10, done=done))
        await asyncio.sleep(0)
        with pytest.raises(error), room.open("a"):
            pass
        with room.open("b"):
            pass
        await asyncio.sleep(0.1)
        with room.open("a"):
            pass  # by now the first one is slow
        await asyncio.sleep(0.02)
        done.set()
        assert isinstance((await all_of([first]))[0], SlowUploadError)

    asyncio.run(main())


def test_an_upload_as_fast_as_speech_plays_makes_no_room():
    """A gateway at its limit reads each of many uploads slowly: none of them is to blame."""

    async def main() -> None:
        room, done = admit(max_uploads=1, min_bytes_per_s=1e3), asyncio.Event()
        first = asyncio.create_task(send_slowly(room, "a", bytes_each=10**6, done=done))
        await asyncio.sleep(0.1)
        with pytest.raises(OverloadedError), room.open("b"):
            pass
        done.set()
        assert await all_of([first]) == [None]

    asyncio.run(main())


def test_a_body_in_small_pieces_makes_room_sooner_than_one_in_large_pieces(monkeypatch):
    monkeypatch.setattr(upload, "_SLOW_AFTER_S", 30.0)

    async def main() -> None:
        for size, is_slow in ((10, True), (4_000, False)):
            arrival = Arrival(timeout_s=30.0, min_bytes_per_s=1e6)
            async with arrival.awaited():
                await asyncio.sleep(0.02)
                assert not arrival.is_slow, "nothing has arrived yet"
                arrival.count(size)
                arrival.count(size)
                assert arrival.is_slow == is_slow

    asyncio.run(main())


def test_an_upload_whose_time_is_over_can_be_ended_before_its_task_has_noticed():
    """Both happen within one turn of the event loop where many uploads are slow."""

    async def main() -> None:
        arrival = Arrival(timeout_s=0.05, min_bytes_per_s=1.0)

        async def read() -> None:
            async with arrival.awaited():
                await asyncio.sleep(30.0)

        loop, faults = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _loop, context: faults.append(context))
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        loop.call_later(0.06, arrival.end)
        loop.call_later(0.06, arrival.count, 1)
        time.sleep(0.1)  # all are due in the next turn
        assert isinstance((await all_of([task]))[0], SlowUploadError)
        assert faults == []

    asyncio.run(main())


def test_a_request_whose_body_is_there_makes_no_room():
    async def main() -> None:
        room = admit(max_uploads=1)
        async with AsyncExitStack() as held:
            coming = held.enter_context(room.open("a"))
            async with coming.awaited():
                coming.count(1)
            await asyncio.sleep(0.1)
            with pytest.raises(OverloadedError), room.open("b"):
                pass

    asyncio.run(main())
