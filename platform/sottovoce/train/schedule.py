"""The learning rate, and when something is due: functions of the step, so nothing needs to be saved."""


def learning_rate_scale(step: int, *, warmup_steps: int, num_steps: int) -> float:
    """Give the part of the highest learning rate that a step uses.

    Args:
        step: from 0 on.
        warmup_steps: steps of the straight rise; the last of them uses the full rate.
        num_steps: steps of the run; one after the last would use zero.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup_steps))


def count_steps(*, steps_per_epoch: int, num_epochs: int, max_steps: int | None) -> int:
    """Give the steps of a run."""
    num_steps = steps_per_epoch * num_epochs
    return num_steps if max_steps is None else min(num_steps, max_steps)


def is_due(step: int, *, every: int | None, num_steps: int) -> bool:
    """Tell whether something that happens every so many steps, and after the last, happens after this many steps."""
    return step == num_steps or (every is not None and step % every == 0)
