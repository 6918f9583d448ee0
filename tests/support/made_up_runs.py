"""Records and curves of runs nobody ran, for the tests of diagnosis and report."""

import math
from collections.abc import Mapping, Sequence

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.text.group_score import GroupScore
from sottovoce.train.config import TrainingConfig
from sottovoce.train.metrics.curves import CurvePoint
from sottovoce.train.record import DataSummary, TrainingRecord

EVERY = 20
"""Steps between evaluations."""


def make_group(
    name: str, wer: float, *, kind: str = "language", half_width: float = 0.01, num_utterances: int = 50
) -> GroupScore:
    return GroupScore(
        kind=kind, name=name, num_utterances=num_utterances, num_words=10 * num_utterances, wer=wer,
        wer_low=wer - half_width, wer_high=wer + half_width, cer=wer / 2, normalizer="basic",
    )  # fmt: skip


def make_rows(
    wers: Sequence[float],
    *,
    losses: Sequence[float] | None = None,
    training_losses: Sequence[float] | None = None,
    half_width: float = 0.01,
    groups: Mapping[int, tuple[GroupScore, ...]] | None = None,
) -> tuple[EvaluationRow, ...]:
    """One row every 20 steps, a minute apart; losses halve from row to row where none are given."""
    losses = losses or [2.0 * 0.5**place for place in range(len(wers))]
    training_losses = training_losses or [1.5 * 0.5**place for place in range(len(wers) - 1)]
    return tuple(
        EvaluationRow(
            step=EVERY * place, epoch=place / 2, training_loss=training_losses[place - 1] if place else None,
            validation_loss=losses[place], wer=wer, wer_low=wer - half_width, wer_high=wer + half_width, cer=wer / 2,
            seconds=60.0 * place, groups=(groups or {}).get(place, ()),
        )
        for place, wer in enumerate(wers)
    )  # fmt: skip


def make_record(
    rows: tuple[EvaluationRow, ...],
    *,
    training: TrainingConfig | None = None,
    precision: str = "fp32",
    data_wait_s: float = 0.0,
    rejects: Mapping[str, int] | None = None,
    is_finished: bool = True,
) -> TrainingRecord:
    """A run on 480 utterances that kept the row with the lowest WER."""
    best = min(rows, key=lambda row: row.wer).step if rows else 0
    training = training or TrainingConfig(evaluate_every_steps=EVERY, warmup_steps=5, num_epochs=10)
    return TrainingRecord(
        base="micro",
        training=training.model_copy(
            update={"learning_rate": training.learning_rate or 1e-4, "num_workers": training.num_workers or 2}
        ),
        device="cpu",
        precision=precision,
        data=DataSummary(
            num_train=440, train_hours=0.4, num_validation=40, validation_hours=0.04, languages=("en",),
            num_speakers=3, rejects=dict(rejects or {}),
        ),
        num_steps=rows[-1].step if rows else 0,
        rows=rows,
        best_step=best,
        normalizer="basic",
        audio_context_s=(2.0, 10.0),
        seconds=600.0,
        audio_s=18_000.0,
        step_s=500.0,
        data_wait_s=data_wait_s,
        resumed_at=(),
        versions={"torch": "2.13.0"},
        is_finished=is_finished,
    )  # fmt: skip


def healthy_record() -> TrainingRecord:
    """A run with nothing to say about: WER falls, then stays; losses fall; evaluated six times."""
    return make_record(
        make_rows(
            [0.60, 0.40, 0.30, 0.25, 0.243, 0.24],
            losses=[2.0, 1.4, 1.1, 1.0, 0.95, 0.94],
            training_losses=[1.8, 1.2, 0.9, 0.8, 0.75],
        )
    )


def make_curve(name: str, values: Sequence[float], *, every: int = 5) -> tuple[CurvePoint, ...]:
    """Points of one figure every so many steps."""
    return tuple(CurvePoint(every * (place + 1), {name: value}) for place, value in enumerate(values))


def falling(number: int, *, start: float = 2.0, end: float = 0.5) -> list[float]:
    """A loss as it should be."""
    return [end + (start - end) * math.exp(-4.0 * place / number) for place in range(number)]
