import pytest

from sottovoce.train.objective import count_steps, is_due, learning_rate_scale


def test_the_rate_rises_linearly_peaks_once_and_falls_to_almost_zero() -> None:
    scales = [learning_rate_scale(step, warmup_steps=4, num_steps=12) for step in range(12)]
    assert scales[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert scales[4:] == sorted(scales[4:], reverse=True)
    assert scales[-1] == pytest.approx(1 / 8)
    assert learning_rate_scale(12, warmup_steps=4, num_steps=12) == 0.0


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_scale(0, warmup_steps=0, num_steps=10) == 1.0


@pytest.mark.parametrize(("num_epochs", "max_steps", "expected"), [(10, None, 50), (10, 7, 7), (1, 500, 5)])
def test_steps_of_a_run(num_epochs: int, max_steps: int | None, expected: int) -> None:
    assert count_steps(steps_per_epoch=5, num_epochs=num_epochs, max_steps=max_steps) == expected


def test_the_last_step_is_always_due() -> None:
    assert [step for step in range(1, 8) if is_due(step, every=3, num_steps=7)] == [3, 6, 7]
    assert [step for step in range(1, 8) if is_due(step, every=None, num_steps=7)] == [7]
