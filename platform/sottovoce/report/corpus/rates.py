"""Measure speaking rates, and find transcripts that are too long or too short for their audio."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sottovoce.report.corpus.amounts import build_histogram
from sottovoce.report.corpus.contents import MAX_LISTED, LanguageRate, OddRate, Rates, RateUnit
from sottovoce.schema import Utterance

UNSPACED_LANGUAGES = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})
"""Languages of Whisper that are written without spaces between words."""

_LETTERS = re.compile(r"[^\W_]")
_FAST_FACTOR, _SLOW_FACTOR = (
    2.5,
    5.0,
)  # guess: nobody speaks this many times faster or slower than the language's median
# At any median, no rate between the inner limits is odd, and every rate outside the outer ones is. Guesses around 2 to
# 4 words/s of conversation; Vietnamese writes syllables apart and reaches 7, Thai writes 3 letters per syllable.
_SLOW_LIMITS: dict[RateUnit, tuple[float, float]] = {"words/s": (0.1, 0.5), "characters/s": (0.2, 1.0)}
_FAST_LIMITS: dict[RateUnit, tuple[float, float]] = {"words/s": (7.0, 14.0), "characters/s": (12.0, 40.0)}
# What a right transcript of a short recording may differ by: a digit can be cut to 0.14 s, and "no" be recorded with
# 4 s of silence around it. Guesses: a word, and the silence that recorders leave before an answer and after it.
_MORE: dict[RateUnit, int] = {"words/s": 1, "characters/s": 4}
_SILENCE_S = 5.0


def find_rates(utterances: Sequence[Utterance]) -> Rates:
    """Measure speaking rates, and list the utterances that are spoken implausibly fast or slow, the worst first.

    An utterance is implausible only if it stays so with a word less, or with 5 s of its duration taken as silence.
    """
    spoken: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for index, utterance in enumerate(utterances):
        amount = _count_spoken(utterance)
        if amount:
            spoken[utterance.language].append((amount / utterance.duration_s, index))
    languages = []
    odd: list[tuple[float, int, float, LanguageRate]] = []
    by_unit: defaultdict[RateUnit, list[float]] = defaultdict(list)
    for language, rates in sorted(spoken.items(), key=lambda item: (-len(item[1]), item[0])):
        limits = _set_limits(language, [rate for rate, _ in rates])
        languages.append(limits)
        by_unit[limits.unit] += [rate for rate, _ in rates]
        for rate, index in rates:
            if _is_odd(rate, utterances[index].duration_s, limits):
                factor = max(rate / limits.fast_limit, limits.slow_limit / rate)
                odd.append((factor, index, rate, limits))
    odd.sort(key=lambda entry: (-entry[0], entry[1]))
    ends = {limits.unit: max(of.fast_limit for of in languages if of.unit == limits.unit) for limits in languages}
    histograms = [build_histogram(by_unit[unit], unit, limit=ends[unit]) for unit in sorted(by_unit, reverse=True)]
    return Rates(
        histograms=tuple(histogram for histogram in histograms if histogram is not None),
        languages=tuple(languages),
        num_odd=len(odd),
        worst=tuple(_describe(utterances[index], factor, rate, of) for factor, index, rate, of in odd[:MAX_LISTED]),
    )


def _count_spoken(utterance: Utterance) -> int:
    """Count words, or letters and digits in languages without spaces; 0 for a translation."""
    if utterance.task == "translate":  # its words were not spoken
        return 0
    if utterance.language in UNSPACED_LANGUAGES:
        return len(_LETTERS.findall(utterance.text))
    return len(utterance.text.split())


def _set_limits(language: str, rates: Sequence[float]) -> LanguageRate:
    unit: RateUnit = "characters/s" if language in UNSPACED_LANGUAGES else "words/s"
    median = float(np.median(rates))
    return LanguageRate(
        language=language,
        unit=unit,
        utterances=len(rates),
        median=median,
        slow_limit=float(np.clip(median / _SLOW_FACTOR, *_SLOW_LIMITS[unit])),
        fast_limit=float(np.clip(median * _FAST_FACTOR, *_FAST_LIMITS[unit])),
    )


def _is_odd(rate: float, duration_s: float, limits: LanguageRate) -> bool:
    """Whether a rate is outside the limits by more than a right transcript of a short recording may be."""
    amount = rate * duration_s
    is_fast = amount - _MORE[limits.unit] > limits.fast_limit * duration_s
    return is_fast or amount < limits.slow_limit * (duration_s - _SILENCE_S)


def _describe(utterance: Utterance, factor: float, rate: float, limits: LanguageRate) -> OddRate:
    return OddRate(
        id=utterance.id,
        language=utterance.language,
        rate=rate,
        unit=limits.unit,
        duration_s=utterance.duration_s,
        text=utterance.text,
        factor=factor,
        is_fast=rate > limits.fast_limit,
    )
