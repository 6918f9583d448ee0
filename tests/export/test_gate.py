from pathlib import Path

import pytest

from sottovoce.errors import ExportGateError
from sottovoce.export.gate import GateDecision, raise_refused


@pytest.mark.parametrize(
    ("wer", "is_servable"),
    [(0.0, True), (0.1, True), (0.11, True), (0.1101, False), (2.0, False), (float("nan"), False)],
)
def test_a_variant_may_lose_as_much_as_the_bound(wer, is_servable):
    assert GateDecision("int8", wer, 0.1, 0.01).is_servable is is_servable


def test_no_rise_is_allowed_with_a_bound_of_zero():
    assert GateDecision("fp32", 0.1, 0.1, 0.0).is_servable
    assert not GateDecision("fp32", 0.1001, 0.1, 0.0).is_servable


def test_a_refused_variant_raises_with_its_values():
    decisions = [GateDecision("fp32", 0.1, 0.1, 0.01), GateDecision("int8", 0.2, 0.1, 0.01)]
    with pytest.raises(ExportGateError, match=r"int8 scores WER 0.2000 against 0.1000.*0.0100.*variants\.json"):
        raise_refused(decisions, report=Path("variants.json"))


def test_the_rate_that_was_judged_is_named():
    with pytest.raises(ExportGateError, match=r"int8 scores CER 0.2000 against 0.1000"):
        raise_refused([GateDecision("int8", 0.2, 0.1, 0.01, "cer")], report=Path("variants.json"))


def test_nothing_raises_when_all_may_be_served():
    for decisions in ([GateDecision("int8", 0.1, 0.1, 0.01)], []):
        assert raise_refused(decisions, report=Path("variants.json")) is None
