import threading
import time
from dataclasses import replace

import pytest

from sottovoce.train.health import heartbeat
from sottovoce.train.health.heartbeat import (
    Heartbeat,
    HeartbeatRegistry,
    HeartbeatSender,
    HeartbeatStatus,
    StuckRank,
    find_stuck,
)

LIMIT_S = 100.0


def beat(rank: int, *, step: int = 7, phase: heartbeat.Phase = "computing") -> Heartbeat:
    return Heartbeat(rank, f"10.0.0.{rank}", pid=1_000 + rank, step=step, phase=phase)


def find(*statuses: HeartbeatStatus) -> StuckRank | None:
    return find_stuck(statuses, stuck_after_s=LIMIT_S)


def test_no_worker_is_stuck_if_none_trains_or_all_make_progress() -> None:
    assert find() is None
    assert find(HeartbeatStatus(beat(0), 1.0, 99.0), HeartbeatStatus(beat(1), 4.0, 3.0)) is None


def test_the_rank_furthest_behind_is_named_and_not_those_that_wait_for_it() -> None:
    waiting = HeartbeatStatus(beat(0, phase="adding up gradients"), 1.0, 130.0)
    ahead = HeartbeatStatus(beat(2, step=8, phase="waiting for data"), 1.0, 120.0)
    stuck = find(waiting, HeartbeatStatus(beat(1, phase="waiting for data"), 1.0, 125.0), ahead)
    assert stuck is not None
    assert stuck.describe() == (
        "rank 1 (process 1001 on 10.0.0.1) has stood still for 125 s at step 7 while waiting for data"
    )


def test_ranks_that_wait_for_a_slow_one_are_not_stuck() -> None:
    done = HeartbeatStatus(beat(0, phase="waiting for the other ranks"), 1.0, 500.0)
    slow = HeartbeatStatus(beat(1, phase="evaluating"), 1.0, 30.0)
    assert find(done, slow) is None
    stuck = find(done, replace(slow, unchanged_s=101.0))
    assert stuck is not None
    assert stuck.rank == 1


def test_at_the_same_position_the_silent_process_is_named() -> None:
    stuck = find(HeartbeatStatus(beat(0), 1.0, 140.0), HeartbeatStatus(beat(1), 101.0, 130.0))
    assert stuck is not None
    assert (stuck.rank, stuck.is_silent) == (1, True)
    assert "its process not even answering" in stuck.describe()


def test_at_the_same_position_the_one_that_noted_nothing_for_longest_is_named() -> None:
    stuck = find(HeartbeatStatus(beat(0), 1.0, 120.0), HeartbeatStatus(beat(1), 2.0, 130.0))
    assert stuck is not None
    assert (stuck.rank, stuck.is_silent) == (1, False)


def test_an_evaluation_belongs_before_the_next_steps() -> None:
    stuck = find(
        HeartbeatStatus(beat(0, phase="evaluating"), 1.0, 120.0),
        HeartbeatStatus(beat(1, phase="waiting for data"), 1.0, 130.0),
    )
    assert stuck is not None
    assert stuck.rank == 0


@pytest.mark.parametrize("phase", ["saving", "starting"])
def test_loading_and_saving_get_ten_times_as_long_unless_the_process_is_silent(phase: heartbeat.Phase) -> None:
    assert find(HeartbeatStatus(beat(0, phase=phase), 1.0, 999.0)) is None
    assert find(HeartbeatStatus(beat(0, phase=phase), 1.0, 1_001.0)) is not None
    assert find(HeartbeatStatus(beat(0, phase=phase), 101.0, 101.0)) is not None


def test_silence_is_noticed_before_ray_drops_the_process_unnamed() -> None:
    assert find_stuck([HeartbeatStatus(beat(0), 101.0, 101.0)], stuck_after_s=3_600.0) is not None


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(heartbeat.time, "monotonic", lambda: self.now)


def test_the_registry_distinguishes_silence_from_standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, registry, first = Clock(monkeypatch), HeartbeatRegistry(), beat(0)
    registry.join(first, num_ranks=1, actor="actor")
    clock.now = 10.0
    registry.record(first)
    clock.now = 15.0
    assert registry.statuses() == [HeartbeatStatus(first, silent_s=5.0, unchanged_s=15.0)]
    registry.record(replace(first, mark=1))
    assert registry.statuses() == [HeartbeatStatus(replace(first, mark=1), silent_s=0.0, unchanged_s=0.0)]
    assert registry.actor(first) == "actor"
    registry.leave(first)
    assert registry.statuses() == []
    assert registry.actor(first) is None


def test_a_restarted_worker_replaces_that_of_its_rank_and_late_heartbeats_are_ignored() -> None:
    registry, former = HeartbeatRegistry(), beat(0)
    registry.join(former, num_ranks=2, actor="former")
    registry.join(beat(1), num_ranks=2, actor="other")
    follower = replace(former, pid=2_000)
    registry.join(follower, num_ranks=1, actor="follower")
    registry.record(replace(former, mark=9))
    assert [status.heartbeat for status in registry.statuses()] == [follower]
    registry.leave(former)
    assert [status.heartbeat for status in registry.statuses()] == [follower]


def test_no_heartbeats_are_expected_of_a_group_that_is_replaced() -> None:
    registry = HeartbeatRegistry()
    for rank in (0, 1):
        registry.join(beat(rank), num_ranks=2, actor="actor")
    registry.clear()
    registry.record(beat(1))
    assert registry.statuses() == []


def test_the_registry_knows_whether_a_group_was_replaced() -> None:
    registry = HeartbeatRegistry()
    assert not registry.has_newcomers()
    registry.join(beat(0), num_ranks=1, actor="actor")
    assert registry.has_newcomers()
    registry.clear()
    registry.record(beat(0))
    assert not registry.has_newcomers()
    registry.join(replace(beat(0), pid=2_000), num_ranks=1, actor="follower")
    registry.leave(replace(beat(0), pid=2_000))
    assert registry.has_newcomers(), "also one that has left again"


class DirectBoard:
    """Stands for the actor's handle: every method runs at once."""

    def __init__(self) -> None:
        self.registry = HeartbeatRegistry()
        self.came = threading.Event()
        for name in ("join", "record", "leave", "statuses", "actor"):
            setattr(self, name, type("Method", (), {"remote": staticmethod(self._called(name))}))

    def _called(self, name: str) -> object:
        def call(*arguments: object, **named: object) -> object:
            if name == "record":
                self.came.set()
            return getattr(self.registry, name)(*arguments, **named)

        return call


def test_the_last_note_is_sent_until_the_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat.ray, "get", lambda value: value)
    monkeypatch.setattr(heartbeat.ray, "get_runtime_context", lambda: type("Context", (), {"current_actor": "me"}))
    monkeypatch.setattr(heartbeat.ray.util, "get_node_ip_address", lambda: "10.0.0.3")
    board = DirectBoard()
    sender = HeartbeatSender(board, rank=3, num_ranks=4, stuck_after_s=0.1)
    with sender.sending():
        sender.note("evaluating", step=5)
        sender.note("evaluating")
        board.came.clear()
        assert board.came.wait(10.0)
        (status,) = board.registry.statuses()
        assert (status.heartbeat.rank, status.heartbeat.node, status.heartbeat.step) == (3, "10.0.0.3", 5)
        assert (status.heartbeat.phase, status.heartbeat.mark) == ("evaluating", 2)
    assert board.registry.statuses() == []


def test_without_a_board_or_a_limit_nothing_is_sent() -> None:
    silent = DirectBoard()
    for board, stuck_after_s in ((None, 10.0), (silent, None)):
        sender = HeartbeatSender(board, rank=0, num_ranks=1, stuck_after_s=stuck_after_s)
        with sender.sending():
            sender.note("computing", step=1)
    assert not silent.came.is_set()


def test_noting_costs_next_to_nothing() -> None:
    sender = HeartbeatSender(None, rank=0, num_ranks=1, stuck_after_s=None)
    started = time.perf_counter()
    for step in range(1_000):
        sender.note("computing", step=step)
    assert time.perf_counter() - started < 0.5  # seconds for a thousand
