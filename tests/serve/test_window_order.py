"""Windows of long recordings wait while short ones are transcribed."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from serve import window_order
from serve.window_order import WindowOrder


@pytest.fixture
def restless(monkeypatch):
    monkeypatch.setattr(window_order, "_REST", 0.0)


class Long:
    """Windows of long recordings, as many as wait; each is in flight until it is told to end."""

    def __init__(self, order: WindowOrder, num_windows: int) -> None:
        self.in_flight: list[int] = []
        self.most = 0
        self.ends = [asyncio.Event() for _ in range(num_windows)]
        self.tasks = [asyncio.create_task(self._send(order, index)) for index in range(num_windows)]

    async def _send(self, order: WindowOrder, index: int) -> None:
        async with order.long():
            self.in_flight.append(index)
            self.most = max(self.most, len(self.in_flight))
            await self.ends[index].wait()
            self.in_flight.remove(index)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_without_short_recordings_nothing_waits():
    async def main() -> None:
        windows = Long(WindowOrder(max_beside_short=1), 8)
        await settle()
        assert len(windows.in_flight) == 8
        for end in windows.ends:
            end.set()
        await asyncio.gather(*windows.tasks)

    asyncio.run(main())


def test_one_that_was_in_flight_rests_while_a_short_recording_is_there(monkeypatch):
    monkeypatch.setattr(window_order, "_REST", 5.0)

    async def main() -> None:
        order = WindowOrder(max_beside_short=1)
        with order.short():
            windows = Long(order, 3)
            await asyncio.sleep(0.05)
            windows.ends[0].set()
            await asyncio.sleep(0.05)
            assert windows.in_flight == []
            await asyncio.sleep(0.5)
            assert windows.in_flight == [1]
            windows.ends[1].set()
            await asyncio.sleep(0.05)
            assert windows.in_flight == []
        await settle()
        assert windows.in_flight == [2], "no short recording is there"
        windows.ends[2].set()
        await asyncio.gather(*windows.tasks)

    asyncio.run(main())


@pytest.mark.usefixtures("restless")
def test_beside_short_ones_they_go_one_by_one_in_order_and_all_once_it_is_quiet(monkeypatch):
    monkeypatch.setattr(window_order, "_QUIET_S", 0.05)

    async def main() -> None:
        order = WindowOrder(max_beside_short=1)
        with order.short():
            windows = Long(order, 8)
            for index in range(3):
                await settle()
                assert windows.in_flight == [index]
                windows.ends[index].set()
        await settle()
        assert windows.in_flight == [3], "another short recording is expected"
        await asyncio.sleep(0.1)
        assert windows.in_flight == [3, 4, 5, 6, 7]
        for end in windows.ends:
            end.set()
        await asyncio.gather(*windows.tasks)

    asyncio.run(main())


@pytest.mark.usefixtures("restless")
def test_a_window_that_is_cancelled_takes_nobodys_turn():
    async def main() -> None:
        order = WindowOrder(max_beside_short=1)
        async with AsyncExitStack() as held:
            held.enter_context(order.short())
            windows = Long(order, 4)
            await settle()
            windows.tasks[1].cancel()  # it waits
            windows.ends[0].set()
            await asyncio.sleep(0)
            windows.tasks[2].cancel()  # it may have been let go just now
            await settle()
            assert windows.in_flight == [3]
            windows.ends[3].set()
            await asyncio.gather(*windows.tasks, return_exceptions=True)
            assert order._num_in_flight == 0

    asyncio.run(main())
