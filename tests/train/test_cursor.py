import pytest

from sottovoce.checkpoints.run_state import Cursor
from sottovoce.errors import ConfigError
from sottovoce.train.microbatches import check_cursor

START = Cursor(epoch=0, step_in_epoch=0, steps_per_epoch=5, num_microbatches=4, fingerprint="a")


def test_a_cursor_is_an_epoch_and_a_step_in_it() -> None:
    cursor = START.at(13)
    assert (cursor.epoch, cursor.step_in_epoch, cursor.num_microbatches) == (2, 3, 4)
    assert START.at(0) == START


def test_a_run_resumes_if_nothing_changed_and_from_an_older_release() -> None:
    check_cursor(START.at(7), START.at(7))
    check_cursor(None, START.at(7))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_microbatches": 8}, "a step had 4 batches and now has 8.*accumulation_steps back"),
        ({"steps_per_epoch": 6}, "an epoch had 5 steps and now has 6"),
        ({"fingerprint": "b"}, "the utterances of the steps are not the same"),
    ],
)
def test_changed_data_or_batches_are_refused_on_resume(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"epoch 1 after 2 of 5 steps, but {complaint}"):
        check_cursor(START.at(7), START.model_copy(update=change).at(7))
