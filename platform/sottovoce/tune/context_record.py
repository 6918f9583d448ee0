"""What a comparison of contexts found, and what follows from it: ``contexts.json``."""

from collections.abc import Sequence

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.schema import Record
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.context_plan import ContextSearchConfig, name_context

CONTEXTS_FILE = "contexts.json"


class EngineScore(Record):
    """How well and how fast one engine recognized with the checkpoints of a context."""

    engine: str
    """torch, or the name of an ONNX variant."""
    wer: float
    """Fraction; the mean over seeds where there are several."""
    wer_low: float
    """Lower end of the bootstrap 95 % interval; of the first seed where there are several."""
    wer_high: float
    cer: float
    rtfx: float
    """Audio seconds per second of recognition, log-mel included, decoding of files excluded; median of the repeats."""


class ContextResult(Record):
    """One context: its trainings and scores."""

    context_s: tuple[float, float]
    seeds: tuple[int, ...]
    curves: tuple[tuple[EvaluationRow, ...], ...]
    """For each seed the evaluations on the validation split."""
    num_steps: int
    training_s: float
    """Seconds in training steps, all seeds together: evaluations and checkpoints left out."""
    data_wait_s: float
    """Of ``training_s``, those in which the worker that waited most had no batch to go on with."""
    trained_audio_s: float
    """Speech trained on, all seeds together."""
    scores: tuple[EngineScore, ...]

    @property
    def training_speed(self) -> float:
        """Audio seconds trained on in a second."""
        return self.trained_audio_s / max(self.training_s, 1e-9)

    @property
    def data_wait(self) -> float:
        """Share of the training steps' time spent waiting for data: much of it hides what a context brings."""
        return self.data_wait_s / max(self.training_s, 1e-9)

    def still_falls(self, bound: float) -> bool:
        """Tell whether validation WER fell by more than a bound between the last two evaluations of a training."""
        return any(rows[-2].wer - rows[-1].wer > bound for rows in self.curves if len(rows) > 1)

    def score_of(self, engine: str) -> EngineScore:
        """Give the score of an engine that was measured."""
        return next(score for score in self.scores if score.engine == engine)


class Comparison(Record):
    """One context held against the first."""

    context_s: tuple[float, float]
    reference_s: tuple[float, float]
    engine: str
    wer_rise: float
    """WER minus the reference's on the same utterances, a fraction: above zero trimming costs."""
    low: float
    """Lower end of the paired bootstrap 95 % interval, over utterances and seeds."""
    high: float
    training_speedup: float
    """Audio seconds trained on in a second, over the reference's."""
    recognition_speedup: float
    """RTFx over the reference's, of the same engine."""
    bound: float
    """Largest rise that is accepted."""

    @property
    def is_within(self) -> bool:
        """WER rose by no more than the bound."""
        return self.wer_rise <= self.bound

    @property
    def is_sure(self) -> bool:
        """The whole interval says the same."""
        return self.high <= self.bound if self.is_within else self.low > self.bound


class ContextRecord(Record):
    """``contexts.json``."""

    search: ContextSearchConfig
    training: TrainingConfig
    """What all runs share."""
    base_context_s: tuple[float, float]
    """Contexts the base model was trained on: one of them has a head start."""
    num_utterances: int
    num_words: int
    scored_hours: float
    normalizer: str
    results: tuple[ContextResult, ...]
    comparisons: tuple[Comparison, ...]
    """Of every context but the first, of every engine."""
    verdict: str


def describe_verdict(results: Sequence[ContextResult], comparisons: Sequence[Comparison], *, bound: float) -> str:
    """Say what each context costs and brings, and whether the trainings were long enough to tell.

    Args:
        results: of all contexts.
        comparisons: those of one engine.
        bound: largest rise of WER that is accepted.
    """
    sentences = [describe_comparison(one) for one in comparisons]
    falling = [name_context(result.context_s) for result in results if result.still_falls(bound)]
    if falling:
        sentences.append(
            f"With {' and '.join(falling)} validation WER was still falling by more than the bound when training "
            "ended: train longer before you decide."
        )
    return " ".join(sentences)


def describe_comparison(one: Comparison) -> str:
    """Say in one sentence what a context costs and brings, and what to do."""
    points = 100 * abs(one.wer_rise)
    verb = "costs" if one.wer_rise >= 0 else "saves"
    interval = f"interval of the change {100 * one.low:+.2f} to {100 * one.high:+.2f}"
    name, reference = name_context(one.context_s), name_context(one.reference_s)
    speed = f"trains {one.training_speedup:.1f}x and recognizes {one.recognition_speedup:.1f}x as fast"
    return (
        f"A context of {name} instead of {reference} {verb} {points:.2f} points of WER ({interval}) and {speed}; "
        f"{_advise(one)}"
    )


def _advise(one: Comparison) -> str:
    shortest, longest = one.context_s
    bound = f"the bound of {100 * one.bound:g} points"
    if one.is_within and one.is_sure:
        return f"use audio_context_s: [{shortest:g}, {longest:g}]."
    if one.is_within:
        return (
            f"use audio_context_s: [{shortest:g}, {longest:g}], though the interval reaches above {bound}: more "
            "utterances to score on, or more seeds, would tell."
        )
    if one.is_sure:
        return f"that is more than {bound}: keep audio_context_s: [{one.reference_s[0]:g}, {one.reference_s[1]:g}]."
    return (
        f"that is more than {bound}, though the interval reaches below it: train longer, or with more seeds, to tell."
    )
