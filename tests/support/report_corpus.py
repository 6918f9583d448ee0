"""Small corpora for the report's tests."""

from collections.abc import Mapping, Sequence

from sottovoce.data.prepare import PreparedData
from sottovoce.schema import Reject, RowWarning, Utterance


def make_utterance(row_id: str, **fields: object) -> Utterance:
    """Two seconds of five words, in training, by nobody in particular."""
    values: dict[str, object] = {"audio": f"/nowhere/{row_id}.wav", "duration_s": 2.0, "text": "this is what was said"}
    return Utterance.model_validate(values | {"id": row_id} | fields)


def make_clean_corpus() -> list[Utterance]:
    """Thirty utterances by six speakers, each in one split; every text and sound occurs once."""
    splits = ("train", "train", "train", "train", "validation", "test")
    return [
        make_utterance(
            f"clean {i}",
            text=f"This is sentence number {i}, isn't it?",
            speaker=f"speaker {i % 6}",
            split=splits[i % 6],
            duration_s=1.5 + 0.1 * i,
            corpus="clean",
        )
        for i in range(30)
    ]


def make_prepared(
    utterances: Sequence[Utterance],
    *,
    rejects: Sequence[Reject] = (),
    warnings: Sequence[RowWarning] = (),
    digests: Mapping[str, str] | None = None,
) -> PreparedData:
    """Every sound is another one, unless ``digests`` says otherwise."""
    return PreparedData(
        corpus="a corpus",
        utterances=tuple(utterances),
        rejects=tuple(rejects),
        warnings=tuple(warnings),
        digests={utterance.id: f"digest of {utterance.id}" for utterance in utterances} | dict(digests or {}),
        num_rows=len(utterances) + len(rejects),
        seconds=1.0,
    )
