"""Scored utterances for the tests of what is made of them."""

from typing import Any

from sottovoce.schema import Utterance
from sottovoce.scores.scored import ScoredUtterance, is_scored_by_character
from sottovoce.text.alignment import align_words
from sottovoce.text.group_score import normalize_pairs


def make_scored(
    row_id: str, reference: str, hypothesis: str, *, snr_db: float | None = 12.5, **fields: object
) -> ScoredUtterance:
    """Two seconds of English by nobody in particular, normalized and aligned as scores are."""
    values: dict[str, object] = {"audio": f"/nowhere/{row_id}.wav", "duration_s": 2.0, "split": "test"}
    utterance = Utterance.model_validate(values | {"id": row_id, "text": reference} | fields)
    ((expected, heard),) = normalize_pairs([utterance], [hypothesis], normalizer="auto")
    return ScoredUtterance(
        utterance=utterance,
        hypothesis=hypothesis,
        normalized_reference=expected,
        normalized_hypothesis=heard,
        alignment=align_words(expected, heard, by_character=is_scored_by_character(utterance)),
        snr_db=snr_db,
    )


def align(*texts: tuple[str, str, dict[str, Any]]) -> list[ScoredUtterance]:
    """Three seconds each, of unknown noise: reference, hypothesis and further fields; the ids are 0, 1, 2, ..."""
    return [
        make_scored(str(number), reference, hypothesis, snr_db=None, **{"duration_s": 3.0, **fields})
        for number, (reference, hypothesis, fields) in enumerate(texts)
    ]
