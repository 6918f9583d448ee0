import threading
import time
from dataclasses import replace

import pytest

from sottovoce.train.health import heartbeat
from sottovoce.train.health.heartbeat import Beat, Heart, Pulse, PulseBook, StuckRank, find_stuck

LIMIT_S = 100.0


def beat(rank: int, *, step: int = 7, phase: heartbeat.Phase = "computing") -> Beat:
    return Beat(rank, f"10.0.0.{rank}", pid=1_000 + rank, step=step, phase=phase)


def find(*pulses: Pulse) -> StuckRank | None:
    return find_stuck(pulses, stuck_after_s=LIMIT_S)


def test_nobody_is_stuck_where_nobody_trains_or_all_go_on() -> None:
    assert find() is None
    assert find(Pulse(beat(0), 1.0, 99.0), Pulse(beat(1), 4.0, 3.0)) is None


def test_the_rank_furthest_back_is_named_and_not_those_that_wait_for_it() -> None:
    waiting = Pulse(beat(0, phase="adding up gradients"), 1.0, 130.0)
    ahead = Pulse(beat(2, step=8, phase="waiting for data"), 1.0, 120.0)
    stuck = find(waiting, Pulse(beat(1, phase="waiting for data"), 1.0, 125.0), ahead)
    assert stuck is not None
    assert stuck.describe() == (
        "rank 1 (process 1001 on 10.0.0.1) has stood still for 125 s at step 7 while waiting for data"
    )


def test_ranks_that_wait_for_a_slow_one_are_not_stuck() -> None:
    done = Pulse(beat(0, phase="waiting for the other ranks"), 1.0, 500.0)
    slow = Pulse(beat(1, phase="evaluating"), 1.0, 30.0)
    assert find(done, slow) is None
    stuck = find(done, replace(slow, unchanged_s=101.0))
    assert stuck is not None
    assert stuck.rank == 1


def test_at_the_same_place_the_one_whose_process_is_silent_is_named() -> None:
    stuck = find(Pulse(beat(0), 1.0, 140.0), Pulse(beat(1), 101.0, 130.0))
    assert stuck is not None
    assert (stuck.rank, stuck.is_silent) == (1, True)
    assert "its process not even answering" in stuck.describe()


def test_at_the_same_place_the_one_that_noted_nothing_for_longest_is_named() -> None:
    stuck = find(Pulse(beat(0), 1.0, 120.0), Pulse(beat(1), 2.0, 130.0))
    assert stuck is not None
    assert (stuck.rank, stuck.is_silent) == (1, False)


def test_an_evaluation_belongs_before_the_next_steps() -> None:
    stuck = find(Pulse(beat(0, phase="evaluating"), 1.0, 120.0), Pulse(beat(1, phase="waiting for data"), 1.0, 130.0))
    assert stuck is not None
    assert stuck.rank == 0


@pytest.mark.parametrize("phase", ["saving", "starting"])
def test_loading_and_saving_get_ten_times_as_long_unless_the_process_is_silent(phase: heartbeat.Phase) -> None:
    assert find(Pulse(beat(0, phase=phase), 1.0, 999.0)) is None
    assert find(Pulse(beat(0, phase=phase), 1.0, 1_001.0)) is not None
    assert find(Pulse(beat(0, phase=phase), 101.0, 101.0)) is not None


def test_silence_is_noticed_before_ray_gives_the_process_up_unnamed() -> None:
    assert find_stuck([Pulse(beat(0), 101.0, 101.0)], stuck_after_s=3_600.0) is not None


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(heartbeat.time, "monotonic", lambda: self.now)


def test_the_book_tells_silence_from_standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, book, first = Clock(monkeypatch), PulseBook(), beat(0)
    book.join(first, num_ranks=1, actor="actor")
    clock.now = 10.0
    book.beat(first)
    clock.now = 15.0
    assert book.pulses() == [Pulse(first, silent_s=5.0, unchanged_s=15.0)]
    book.beat(replace(first, mark=1))
    assert book.pulses() == [Pulse(replace(first, mark=1), silent_s=0.0, unchanged_s=0.0)]
    assert book.actor(first) == "actor"
    book.leave(first)
    assert book.pulses() == []
    assert book.actor(first) is None


def test_a_worker_started_anew_takes_its_ranks_place_and_late_beats_of_the_former_count_nothing() -> None:
    book, former = PulseBook(), beat(0)
    book.join(former, num_ranks=2, actor="former")
    book.join(beat(1), num_ranks=2, actor="other")
    follower = replace(former, pid=2_000)
    book.join(follower, num_ranks=1, actor="follower")
    book.beat(replace(former, mark=9))
    assert [pulse.beat for pulse in book.pulses()] == [follower]
    book.leave(former)
    assert [pulse.beat for pulse in book.pulses()] == [follower]


def test_nothing_more_is_expected_of_a_group_that_is_replaced() -> None:
    book = PulseBook()
    for rank in (0, 1):
        book.join(beat(rank), num_ranks=2, actor="actor")
    book.clear()
    book.beat(beat(1))
    assert book.pulses() == []


def test_the_book_knows_whether_a_group_was_replaced() -> None:
    book = PulseBook()
    assert not book.has_newcomers()
    book.join(beat(0), num_ranks=1, actor="actor")
    assert book.has_newcomers()
    book.clear()
    book.beat(beat(0))
    assert not book.has_newcomers()
    book.join(replace(beat(0), pid=2_000), num_ranks=1, actor="follower")
    book.leave(replace(beat(0), pid=2_000))
    assert book.has_newcomers(), "also one that has left again"


class DirectBoard:
    """Stands for the actor's handle: every method runs at once."""

    def __init__(self) -> None:
        self.book = PulseBook()
        self.came = threading.Event()
        for name in ("join", "beat", "leave", "pulses", "actor"):
            setattr(self, name, type("Method", (), {"remote": staticmethod(self._called(name))}))

    def _called(self, name: str) -> object:
        def call(*arguments: object, **named: object) -> object:
            if name == "beat":
                self.came.set()
            return getattr(self.book, name)(*arguments, **named)

        return call


def test_a_heart_posts_what_was_noted_last_until_the_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat.ray, "get", lambda value: value)
    monkeypatch.setattr(heartbeat.ray, "get_runtime_context", lambda: type("Context", (), {"current_actor": "me"}))
    monkeypatch.setattr(heartbeat.ray.util, "get_node_ip_address", lambda: "10.0.0.3")
    board = DirectBoard()
    heart = Heart(board, rank=3, num_ranks=4, stuck_after_s=0.1)
    with heart.beating():
        heart.note("evaluating", step=5)
        heart.note("evaluating")
        board.came.clear()
        assert board.came.wait(10.0)
        (pulse,) = board.book.pulses()
        assert (pulse.beat.rank, pulse.beat.node, pulse.beat.step) == (3, "10.0.0.3", 5)
        assert (pulse.beat.phase, pulse.beat.mark) == ("evaluating", 2)
    assert board.book.pulses() == []


def test_a_heart_without_a_board_or_a_limit_is_silent() -> None:
    for board, stuck_after_s in ((None, 10.0), (DirectBoard(), None)):
        heart = Heart(board, rank=0, num_ranks=1, stuck_after_s=stuck_after_s)
        with heart.beating():
            heart.note("computing", step=1)


def test_noting_costs_next_to_nothing() -> None:
    heart = Heart(None, rank=0, num_ranks=1, stuck_after_s=None)
    started = time.perf_counter()
    for step in range(1_000):
        heart.note("computing", step=step)
    assert time.perf_counter() - started < 0.5  # seconds for a thousand
