"""The audit of killed runs sees what it is there to see."""

import json
from pathlib import Path

import pytest

from benchmarks.audited_training import audit_run, draw_kills, read_notes

EVERYONE = ["a", "b", "c", "d"]  # two steps of two microbatches in an epoch
BATCHES = {(0, 0): ["a"], (0, 1): ["b"], (1, 0): ["c"], (1, 1): ["d"]}


def write(folder: Path, worker: int, microbatches: list[tuple[int, int, int]], *, batches: object = BATCHES) -> None:
    """One worker's notes: (time, step, microbatch) of what it trained on."""
    lines = [
        {
            "what": "trained",
            "time_ns": time,
            "step": step,
            "microbatch": microbatch,
            "ids": batches[step % 2, microbatch],
        }  # type: ignore[index]
        for time, step, microbatch in microbatches
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{worker}.jsonl").write_text(text + '{"what": "trai', encoding="utf-8")


def test_a_run_that_was_resumed_is_exact_and_its_replayed_step_is_counted(tmp_path: Path) -> None:
    write(tmp_path, 0, [(1, 0, 0), (3, 1, 0)])
    write(tmp_path, 1, [(2, 0, 1), (4, 1, 1)])
    write(tmp_path, 2, [(5, 1, 0), (6, 1, 1), (7, 2, 0), (8, 2, 1), (9, 3, 0), (10, 3, 1)])
    audit = audit_run(tmp_path, everyone=EVERYONE, steps_per_epoch=2)
    assert (audit.num_workers, audit.num_steps_replayed) == (3, 1)
    assert (audit.num_disagreeing, audit.num_epochs_exact, audit.is_in_order) == (0, 2, True)
    assert len(read_notes(tmp_path / "0.jsonl")) == 2, "a line cut short by a death is left out"


def test_an_utterance_left_out_or_read_twice_spoils_its_epoch(tmp_path: Path) -> None:
    write(tmp_path, 0, [(1, 0, 0), (2, 0, 1), (3, 1, 0)])
    assert audit_run(tmp_path, everyone=EVERYONE, steps_per_epoch=2).num_epochs_exact == 0
    write(tmp_path, 1, [(4, 1, 1)], batches={(1, 1): ["a"]})
    assert audit_run(tmp_path, everyone=EVERYONE, steps_per_epoch=2).num_epochs_exact == 0


def test_other_utterances_in_a_step_that_is_read_again_are_seen(tmp_path: Path) -> None:
    write(tmp_path, 0, [(1, 0, 0), (2, 0, 1), (3, 1, 0), (4, 1, 1)])
    write(tmp_path, 1, [(5, 1, 0), (6, 1, 1)], batches={(1, 0): ["d"], (1, 1): ["c"]})
    audit = audit_run(tmp_path, everyone=EVERYONE, steps_per_epoch=2)
    assert (audit.num_disagreeing, audit.num_epochs_exact) == (2, 1)


def test_steps_taken_again_out_of_order_or_never_are_seen(tmp_path: Path) -> None:
    write(tmp_path, 0, [(1, 0, 0), (2, 0, 1), (3, 1, 0), (4, 1, 1), (5, 0, 0), (6, 0, 1)])
    assert not audit_run(tmp_path, everyone=EVERYONE, steps_per_epoch=2).is_in_order
    write(tmp_path, 0, [(1, 0, 0), (2, 0, 1), (3, 2, 0), (4, 2, 1)])
    assert not audit_run(tmp_path, everyone=EVERYONE, steps_per_epoch=2).is_in_order


@pytest.mark.parametrize("seed", range(5))
def test_deaths_come_one_after_the_other_and_before_the_end(seed: int) -> None:
    kills = draw_kills(["driver", "worker", "worker"], num_steps=20, seed=seed)
    steps = [kill.step for kill in kills]
    assert steps == sorted(set(steps))
    assert 1 <= steps[0] <= steps[-1] < 16
    assert sorted(kill.victim for kill in kills) == ["driver", "worker", "worker"]
