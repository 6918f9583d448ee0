"""Count the contents of a corpus: hours by name, histograms, speakers, faults."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from sottovoce.report.corpus.contents import (
    MAX_EXAMPLES,
    MAX_LISTED,
    Amount,
    Fault,
    FaultExample,
    Histogram,
    LeakedSpeaker,
    Ranking,
    Speakers,
)
from sottovoce.schema import Reject, RowWarning, Split, Utterance

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_MAX_BINS = 30  # a person can still tell them apart in a plot of ten inches
_STEPS = tuple(mantissa * 10.0**power for power in range(-3, 7) for mantissa in (1.0, 2.0, 2.5, 5.0))


def rank(utterances: Iterable[Utterance], name: Callable[[Utterance], str | None]) -> Ranking:
    """Sum utterances and hours by name, the largest first."""
    counts: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    unnamed = 0
    for utterance in utterances:
        key = name(utterance)
        if key is None:
            unnamed += 1
            continue
        counts[key] += 1
        seconds[key] += utterance.duration_s
    return _rank(seconds, counts, unnamed)


def sum_splits(utterances: Iterable[Utterance]) -> tuple[Amount, ...]:
    """Return utterances and hours of training, validation and test; empty splits are included."""
    found = {amount.name: amount for amount in rank(utterances, lambda utterance: utterance.split).biggest}
    return tuple(found.get(split, Amount(name=split, utterances=0, hours=0.0)) for split in SPLITS)


def build_histogram(values: Sequence[float], unit: str, *, limit: float = np.inf) -> Histogram | None:
    """Count values in at most 30 bins from 0, whose width is 1, 2, 2.5 or 5 times a power of ten.

    Args:
        values: not negative.
        unit: the unit of the values.
        limit: values above it are counted but not drawn, because an outlier would squeeze the rest.

    Returns:
        The histogram, or None without values.
    """
    if not len(values):
        return None
    numbers = np.asarray(values, dtype=np.float64)
    low, p5, median, p95, high = (float(value) for value in np.percentile(numbers, (0, 5, 50, 95, 100)))
    end = min(high, limit) or 1.0
    step = next((step for step in _STEPS if end / step <= _MAX_BINS), end / _MAX_BINS)
    num_bins = int(np.ceil(end / step))
    edges = np.round(np.arange(num_bins + 1) * step, 6)
    counts, _ = np.histogram(numbers, bins=edges)
    return Histogram(
        unit=unit,
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        num_above=int(np.count_nonzero(numbers > edges[-1])),
        low=low,
        p5=p5,
        median=median,
        mean=float(numbers.mean()),
        p95=p95,
        high=high,
    )


def find_speakers(utterances: Sequence[Utterance]) -> Speakers:
    """Rank the speakers, and list those who are in training and also in validation or test."""
    names = name_speakers(utterances)
    named = [(name, utterance) for name, utterance in zip(names, utterances, strict=True) if name is not None]
    seconds: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, utterance in named:
        seconds[name] += utterance.duration_s
        counts[name][utterance.split] += 1
    leaked = [
        LeakedSpeaker(name=name, train=splits["train"], validation=splits["validation"], test=splits["test"])
        for name, splits in counts.items()
        if splits["train"] and (splits["validation"] or splits["test"])
    ]
    leaked.sort(key=lambda speaker: (-speaker.validation - speaker.test, speaker.name))
    return Speakers(
        ranking=_rank(seconds, {name: splits.total() for name, splits in counts.items()}, names.count(None)),
        minutes=build_histogram([value / 60 for value in seconds.values()], "min"),
        biggest_share=max(seconds.values(), default=0.0) / (sum(seconds.values()) or 1.0),
        num_leaked=len(leaked),
        leaked=tuple(leaked[:MAX_LISTED]),
    )


def name_speakers(utterances: Sequence[Utterance]) -> list[str | None]:
    """Return each utterance's speaker, with the corpus if there are several: each may number its speakers from 1."""
    has_several = len({utterance.corpus for utterance in utterances}) > 1
    return [
        f"{utterance.corpus or 'no corpus'}: {utterance.speaker}"
        if has_several and utterance.speaker is not None
        else utterance.speaker
        for utterance in utterances
    ]


def count_rejects(rejects: Iterable[Reject]) -> tuple[Fault, ...]:
    """Count rejects by reason, the most frequent first."""
    return _count((reject.reason, reject.id, reject.detail) for reject in rejects)


def count_warnings(warnings: Iterable[RowWarning]) -> tuple[Fault, ...]:
    """Count warnings by kind, the most frequent first."""
    return _count((warning.kind, warning.id, warning.detail) for warning in warnings)


def _rank(seconds: Mapping[str, float], counts: Mapping[str, int], unnamed: int) -> Ranking:
    order = sorted(seconds, key=lambda name: (-seconds[name], name))
    biggest = (Amount(name=name, utterances=counts[name], hours=seconds[name] / 3600) for name in order[:MAX_LISTED])
    return Ranking(total=len(order), biggest=tuple(biggest), unnamed=unnamed)


def _count(faults: Iterable[tuple[str, str, str]]) -> tuple[Fault, ...]:
    counts: Counter[str] = Counter()
    examples: defaultdict[str, list[FaultExample]] = defaultdict(list)
    for name, row_id, detail in faults:
        counts[name] += 1
        if len(examples[name]) < MAX_EXAMPLES:
            examples[name].append(FaultExample(id=row_id, detail=detail))
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(Fault(name=name, rows=counts[name], examples=tuple(examples[name])) for name in order)
