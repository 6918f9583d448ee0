import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from sottovoce.data.check import Checked, reject_duplicate
from sottovoce.data.prepare import PrepareConfig, build_rules, divide, name_of
from sottovoce.errors import CheckpointError, LanguageError
from sottovoce.schema import RowWarning, Utterance


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="tokenizer"):
        build_rules(PrepareConfig(tokenizer=str(tmp_path)), name="corpus")


def test_a_default_language_without_a_token_is_named():
    with pytest.raises(LanguageError, match="tlh"):
        build_rules(PrepareConfig(language="tlh"), name="corpus")


def test_a_column_with_the_name_of_a_field_is_refused():
    assert PrepareConfig(keep_columns=("condition",)).keep_columns == ("condition",)
    with pytest.raises(ValidationError, match=r"speaker is a field of every utterance.* rename the column"):
        PrepareConfig(keep_columns=("condition", "speaker"))


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        ("/data/throat", "throat"),
        (Path("/data/throat"), "throat"),
        ("/data/train.jsonl", "train"),
        ("s3://bucket/common.voice/de/", "de"),
        ("hf://datasets/user/dictation", "dictation"),
        ("memory://shard.tar", "shard"),
        ("s3://bucket", "bucket"),
    ],
)
def test_a_corpus_is_named_after_the_last_part_of_its_location(corpus: str | Path, name: str):
    assert name_of(corpus) == name


def test_utterances_and_rejects_keep_the_order_of_the_corpus_and_their_splits():
    def utterance(row_id: str) -> Utterance:
        return Utterance(id=row_id, audio="a.wav", duration_s=1.0, text="said")

    warning = RowWarning(id="a", audio="a.wav", kind="clipped", detail="x")
    checked = [
        Checked(outcome=utterance("b"), digest="2", split="test"),
        reject_duplicate("b", "a.wav"),
        Checked(outcome=utterance("a"), digest="1", split="validation", warnings=(warning,)),
        Checked(outcome=utterance("c"), digest="3", split="train"),
    ]
    data = divide(checked, PrepareConfig(), name="corpus", started=time.monotonic())
    assert [(row.id, row.split) for row in data.utterances] == [("b", "test"), ("a", "validation"), ("c", "train")]
    assert [row.id for row in data.rejects] == ["b"]
    assert data.warnings == (warning,)
    assert data.digests == {"b": "2", "a": "1", "c": "3"}
    assert (data.num_rows, data.corpus) == (4, "corpus")
