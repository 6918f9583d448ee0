import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pydantic import TypeAdapter

from sottovoce.data.check import Checked
from sottovoce.data.check_corpus import build_check, require_same_rows
from sottovoce.data.prepare import PrepareConfig, build_rules
from sottovoce.errors import RowsLostError


def test_a_mapped_row_carries_the_outcome_as_json(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(np.arange(16_000) * 0.2), 16_000)
    rules = build_rules(PrepareConfig(language="de"), name="corpus")
    item = {"place": 3, "record": json.dumps({"id": "a", "audio": str(tmp_path / "a.wav"), "text": " Said. "})}
    mapped = build_check(pickle.loads(pickle.dumps(rules)))(item)
    checked = TypeAdapter(Checked).validate_json(mapped["record"])
    assert mapped["place"] == 3
    assert checked.outcome.model_dump(include={"text", "language", "corpus"}) == {
        "text": "Said.",
        "language": "de",
        "corpus": "corpus",
    }
    assert checked.digest is not None


def test_the_same_rows_in_another_order_are_no_loss():
    require_same_rows("check", ["a", "b", "b"], ["b", "a", "b"])


@pytest.mark.parametrize(
    ("ids_out", "message"),
    [
        (["a"], r"stage check: 2 rows went in and 1 came out \(lost 'b'; added none\)"),
        (["a", "b", "b"], "2 rows went in and 3 came out .lost none; added 'b'"),
        (["a", "c"], "lost 'b'; added 'c'"),
        ([], "lost 'a', 'b'"),
    ],
)
def test_a_lost_a_doubled_and_an_exchanged_row_are_named(ids_out: list[str], message: str):
    with pytest.raises(RowsLostError, match=message):
        require_same_rows("check", ["a", "b"], ids_out)


def test_of_many_lost_rows_three_are_named():
    with pytest.raises(RowsLostError, match=r"lost '0', '1', '2' and 7 more"):
        require_same_rows("check", [str(i) for i in range(10)], [])
