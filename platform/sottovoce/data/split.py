"""Divide utterances into training, validation and test, so that no speaker is heard in two of them."""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from sottovoce.schema import Split, Utterance

logger = logging.getLogger(__name__)


def assign_splits(
    utterances: Sequence[Utterance],
    *,
    declared: Mapping[str, Split],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[Utterance]:
    """Give every utterance its split; the same input and seed give the same result on any machine.

    A split the corpus declares stands, with one exception: where it declares training rows and no validation rows,
    validation is taken out of training. Whole speakers go to one split; where there are too few speakers to fill
    every split, single utterances do, and a warning says so.

    Args:
        utterances: in any order, ids unique.
        declared: split by id, for the utterances whose corpus names one.
        validation_fraction: of the utterances that are divided.
        test_fraction: of the utterances that are divided; nothing where the corpus declares a test split.
        seed: another seed gives another division.

    Returns:
        The utterances in the given order.
    """
    present = set(declared.values())
    pool = [utterance for utterance in utterances if utterance.id not in declared]
    if present and "validation" not in present:
        pool += [utterance for utterance in utterances if declared.get(utterance.id) == "train"]
    fractions: dict[Split, float] = {"validation": validation_fraction, "test": test_fraction}
    if present:  # a corpus with splits of its own decides what is test
        fractions["test"] = 0.0
    if "validation" in present:
        fractions["validation"] = 0.0
    divided = _divide(pool, {split: fraction for split, fraction in fractions.items() if fraction > 0.0}, seed=seed)
    return [
        utterance.model_copy(update={"split": divided.get(utterance.id) or declared.get(utterance.id, "train")})
        for utterance in utterances
    ]


def _divide(pool: Sequence[Utterance], fractions: Mapping[Split, float], *, seed: int) -> dict[str, Split]:
    """Give the ids that leave training, with their split."""
    keys = {utterance.id: _speaker_key(utterance) for utterance in pool}
    if len(set(keys.values())) <= len(fractions) < len(pool):
        logger.warning(
            "%d speakers cannot fill %d splits: splitting by utterance, so speakers are heard in several splits",
            len(set(keys.values())),
            len(fractions) + 1,
        )
        keys = {utterance.id: utterance.id for utterance in pool}
    sizes = Counter(keys.values())
    order = sorted(sizes, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    split_of_key: dict[str, Split] = {}
    for split, fraction in fractions.items():
        filled = 0
        for key in [key for key in order if key not in split_of_key]:
            leaves_training = len(split_of_key) + 1 < len(order)
            # Half a group over the target is nearer to it than half a group under; every split gets at least one.
            if leaves_training and (filled == 0 or filled + sizes[key] / 2 <= fraction * len(pool)):
                split_of_key[key] = split
                filled += sizes[key]
    return {row_id: split_of_key[key] for row_id, key in keys.items() if key in split_of_key}


def _speaker_key(utterance: Utterance) -> str:
    """Name the group that stays together: the speaker, or the utterance itself where no speaker is known."""
    return f"utterance {utterance.id}" if utterance.speaker is None else f"speaker {utterance.speaker}"
