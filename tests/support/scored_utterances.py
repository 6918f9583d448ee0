"""Scored utterances for the tests of what is made of them."""

from sottovoce.schema import Utterance
from sottovoce.scores.scored import ScoredUtterance
from sottovoce.text.alignment import align_words
from sottovoce.text.group_score import normalize_pairs
from sottovoce.text.scoring_table import scoring_of


def make_scored(row_id: str, reference: str, hypothesis: str, **fields: object) -> ScoredUtterance:
    """Two seconds of English by nobody in particular, normalized and aligned as scores are."""
    values: dict[str, object] = {"audio": f"/nowhere/{row_id}.wav", "duration_s": 2.0, "split": "test"}
    utterance = Utterance.model_validate(values | {"id": row_id, "text": reference} | fields)
    ((expected, heard),) = normalize_pairs([utterance], [hypothesis], normalizer="auto")
    by_character = scoring_of(utterance.language).headline == "cer"
    return ScoredUtterance(
        utterance=utterance,
        hypothesis=hypothesis,
        normalized_reference=expected,
        normalized_hypothesis=heard,
        alignment=align_words(expected, heard, by_character=by_character),
        snr_db=12.5,
    )
