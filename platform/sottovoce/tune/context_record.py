"""The result of a comparison of contexts, ``contexts.json``, and the verdict that follows from it."""

from collections.abc import Sequence

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.schema import Record
from sottovoce.text.scoring_table import Headline
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.context_plan import ContextSearchConfig, name_context

CONTEXTS_FILE = "contexts.json"


class EngineScore(Record):
    """Accuracy and speed of one engine with the checkpoints of a context."""

    engine: str
    """torch, or the name of an ONNX variant."""
    wer: float
    """Fraction; mean over seeds."""
    wer_low: float
    """Lower end of the bootstrap 95 % interval, of the first seed."""
    wer_high: float
    cer: float
    rtfx: float
    """Audio seconds per second of recognition, with log-mel and without decoding of files; median of the repeats."""


class ContextResult(Record):
    """The runs and scores of one context."""

    context_s: tuple[float, float]
    seeds: tuple[int, ...]
    curves: tuple[tuple[EvaluationRow, ...], ...]
    """Evaluations on the validation split, for each seed."""
    num_steps: int
    training_s: float
    """Seconds in training steps of all seeds, without evaluations and checkpoints."""
    data_wait_s: float
    """The part of ``training_s`` in which the worker that waited longest had no batch."""
    trained_audio_s: float
    """Seconds of speech trained on, in all seeds."""
    scores: tuple[EngineScore, ...]

    @property
    def training_speed(self) -> float:
        """Audio seconds trained on per second."""
        return self.trained_audio_s / max(self.training_s, 1e-9)

    @property
    def data_wait(self) -> float:
        """Fraction of the training steps' time spent waiting for data; a large one hides the effect of the context."""
        return self.data_wait_s / max(self.training_s, 1e-9)

    def still_falls(self, bound: float) -> bool:
        """Whether the validation error rate fell by more than a bound between the last two evaluations of a run."""
        return any(rows[-2].error_rate - rows[-1].error_rate > bound for rows in self.curves if len(rows) > 1)

    def score_of(self, engine: str) -> EngineScore:
        """Return the score of a measured engine."""
        return next(score for score in self.scores if score.engine == engine)


class Comparison(Record):
    """One context compared with the reference, the first context."""

    context_s: tuple[float, float]
    reference_s: tuple[float, float]
    engine: str
    wer_rise: float
    """Error rate minus the reference's on the same utterances, as a fraction; positive if trimming costs accuracy."""
    low: float
    """Lower end of the paired bootstrap 95 % interval, over utterances and seeds."""
    high: float
    training_speedup: float
    """Training speed divided by the reference's."""
    recognition_speedup: float
    """RTFx divided by the reference's with the same engine."""
    bound: float
    """Largest accepted rise."""
    metric: Headline = "wer"
    """The rate that was compared: cer in languages without spaces."""

    @property
    def is_within(self) -> bool:
        """Whether the error rate rose by no more than the bound."""
        return self.wer_rise <= self.bound

    @property
    def is_sure(self) -> bool:
        """Whether the whole interval is on the same side of the bound."""
        return self.high <= self.bound if self.is_within else self.low > self.bound


class ContextRecord(Record):
    """``contexts.json``."""

    search: ContextSearchConfig
    training: TrainingConfig
    """The settings that all runs share."""
    base_context_s: tuple[float, float]
    """Contexts that the base model was trained on; the nearest of the compared ones has an advantage."""
    num_utterances: int
    num_words: int
    scored_hours: float
    normalizer: str
    results: tuple[ContextResult, ...]
    comparisons: tuple[Comparison, ...]
    """Comparisons of every context but the first, with every engine."""
    verdict: str


def describe_verdict(results: Sequence[ContextResult], comparisons: Sequence[Comparison], *, bound: float) -> str:
    """Describe the cost and the benefit of each context, and whether the runs were long enough to decide.

    Args:
        results: those of all contexts.
        comparisons: those of one engine.
        bound: largest accepted rise of the error rate.
    """
    sentences = [describe_comparison(one) for one in comparisons]
    falling = [result for result in results if result.still_falls(bound)]
    if falling:
        names, rate = [name_context(result.context_s) for result in falling], falling[0].curves[0][-1].rate_name
        sentences.append(
            f"With {' and '.join(names)} validation {rate} was still falling by more than the bound when training "
            "ended: train longer before you decide."
        )
    return " ".join(sentences)


def describe_comparison(one: Comparison) -> str:
    """Describe the cost and the benefit of a context in one sentence, with advice."""
    points = 100 * abs(one.wer_rise)
    verb = "costs" if one.wer_rise >= 0 else "saves"
    interval = f"interval of the change {100 * one.low:+.2f} to {100 * one.high:+.2f}"
    name, reference = name_context(one.context_s), name_context(one.reference_s)
    speed = f"trains {one.training_speedup:.1f}x and recognizes {one.recognition_speedup:.1f}x as fast"
    return (
        f"A context of {name} instead of {reference} {verb} {points:.2f} points of {one.metric.upper()} "
        f"({interval}) and {speed}; {_advise(one)}"
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
