import pytest

from sottovoce.train.health.progress import ProgressBoard, ProgressPost, Snapshot


class DirectHandle:
    """Stands for the actor's handle: ``post.remote`` calls the board at once."""

    def __init__(self) -> None:
        self.board = ProgressBoard()
        self.post = type("Method", (), {"remote": staticmethod(self.board.post)})
        self.read = type("Method", (), {"remote": staticmethod(self.board.read)})


def test_the_driver_reads_what_the_first_rank_posted_last() -> None:
    handle = DirectHandle()
    post = ProgressPost(handle)
    post.update(num_steps=100)
    post.update(step=25, loss=1.5, steps_per_s=2.5, audio_s_per_s=80.0, phase="training", data_wait=0.012)
    snapshot = handle.board.read()
    assert snapshot.describe() == "training: loss 1.500, 2.50 steps/s, 80 audio-s/s, 1.2% data wait"
    assert snapshot.remaining_s == pytest.approx(30.0)


def test_skipped_steps_are_shown() -> None:
    snapshot = Snapshot(phase="training", step=9, loss=1.0, steps_per_s=2.0, skipped_steps=4, skipped_in_a_row=2)
    assert snapshot.describe().endswith("0.0% data wait, 4 steps skipped (2 in a row)")
    assert Snapshot(loss=1.0, steps_per_s=2.0, skipped_steps=4).describe().endswith(", 4 steps skipped")


def test_before_the_first_step_only_the_phase_is_shown() -> None:
    assert Snapshot(phase="measuring the base model", num_steps=10).describe() == "measuring the base model"
    assert Snapshot().remaining_s == 0.0


def test_other_ranks_post_nothing() -> None:
    assert ProgressPost(None).update(step=3) is None


def test_a_misspelt_field_fails_at_once() -> None:
    with pytest.raises(TypeError):
        ProgressPost(None).update(stpe=3)
