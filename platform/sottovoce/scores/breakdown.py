"""Where a model errs: error rates by corpus, language, speaker, duration, noise, and any column."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from sottovoce.scores.scored import ScoredUtterance
from sottovoce.text.group_score import ErrorCounts, GroupScore, count_errors, score_groups
from sottovoce.text.normalize import Normalizer

DURATION_EDGES_S = (2.0, 5.0, 10.0, 20.0, 30.0)
SNR_EDGES_DB = (0.0, 10.0, 20.0, 30.0)
MISSING = "(none)"
"""The group of utterances without a corpus, a speaker, an SNR, or a value in a column."""
NUM_WORST = 10
_FEWEST_UNITS = 20  # words or characters of a speaker whose rate says something (guess, untested)


def break_down(
    scored: Sequence[ScoredUtterance],
    *,
    normalizer: Normalizer,
    columns: Mapping[str, Mapping[str, str]],
    seed: int = 0,
) -> tuple[GroupScore, ...]:
    """Score utterances by everything that is known of them.

    Args:
        scored: all utterances.
        normalizer: that they were scored by.
        columns: for each column asked for, its value by utterance id.
        seed: of the bootstrap.

    Returns:
        Groups of each kind, buckets in order and others by name: corpora, languages, speakers, durations and SNRs where
        there are several, and those of the columns asked for.
    """
    pairs = [(one.normalized_reference, one.normalized_hypothesis) for one in scored]
    utterances = [one.utterance for one in scored]
    counts = count_errors(utterances, pairs, normalizer=normalizer)
    names: dict[str, list[str]] = {
        "corpus": [one.corpus or MISSING for one in utterances],
        "language": [one.language for one in utterances],
        "speaker": [one.speaker or MISSING for one in utterances],
        "duration": [name_bucket(one.duration_s, DURATION_EDGES_S, "s") for one in utterances],
        "SNR": [name_bucket(one.snr_db, SNR_EDGES_DB, "dB") for one in scored],
    }
    asked = {column: [values.get(one.id, MISSING) for one in utterances] for column, values in columns.items()}
    several = {kind: values for kind, values in names.items() if kind not in asked and len(set(values)) > 1}
    kinds = {**several, **asked}
    return tuple(group for kind, values in kinds.items() for group in _in_order(kind, values, counts, seed))


def worst_speakers(groups: Iterable[GroupScore]) -> list[GroupScore]:
    """Return the speakers with the highest error rates among those who said enough, the worst first."""
    speakers = [one for one in groups if one.kind == "speaker" and one.name != MISSING]
    enough = [one for one in speakers if (one.num_units or 0) >= _FEWEST_UNITS]
    return sorted(enough, key=lambda one: -one.error_rate)[:NUM_WORST]


def name_bucket(value: float | None, edges: Sequence[float], unit: str) -> str:
    """Return the name of the bucket that a value lies in: ``5 to 10 s``; a lower edge belongs to its bucket."""
    return MISSING if value is None else _bucket_names(edges, unit)[bisect_right(edges, value)]


def _bucket_names(edges: Sequence[float], unit: str) -> list[str]:
    inner = [f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g} {unit}", *inner, f"from {edges[-1]:g} {unit}"]


def _in_order(kind: str, names: Sequence[str], counts: ErrorCounts, seed: int) -> list[GroupScore]:
    order = [*_bucket_names(DURATION_EDGES_S, "s"), *_bucket_names(SNR_EDGES_DB, "dB")]
    places = {name: place for place, name in enumerate(order)}
    groups = score_groups(kind, names, counts, seed=seed)
    return sorted(groups, key=lambda one: (one.name == MISSING, places.get(one.name, 0)))
