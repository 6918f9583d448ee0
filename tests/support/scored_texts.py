"""Scored utterances made from texts."""

from typing import Any

from sottovoce.schema import Utterance
from sottovoce.scores.scored import ScoredUtterance, is_scored_by_character
from sottovoce.text.alignment import align_words
from sottovoce.text.group_score import normalize_pairs


def align(*texts: tuple[str, str, dict[str, Any]]) -> list[ScoredUtterance]:
    """Align references with hypotheses; of each also the fields of its utterance, whose ids are 0, 1, 2, ..."""
    utterances = [
        Utterance(**{"id": str(number), "audio": f"{number}.wav", "duration_s": 3.0, "text": reference, **fields})
        for number, (reference, _, fields) in enumerate(texts)
    ]
    hypotheses = [hypothesis for _, hypothesis, _ in texts]
    normalized = normalize_pairs(utterances, hypotheses, normalizer="auto")
    return [
        ScoredUtterance(
            utterance=utterance,
            hypothesis=hypothesis,
            normalized_reference=reference,
            normalized_hypothesis=heard,
            alignment=align_words(reference, heard, by_character=is_scored_by_character(utterance)),
            snr_db=None,
        )
        for utterance, hypothesis, (reference, heard) in zip(utterances, hypotheses, normalized, strict=True)
    ]
