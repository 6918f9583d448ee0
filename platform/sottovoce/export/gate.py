"""The export gate decides which variants lost too much accuracy to be served. Others act on its decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sottovoce.errors import ExportGateError
from sottovoce.model.variants import Variant
from sottovoce.text.scoring_table import Headline


@dataclass(frozen=True)
class GateDecision:
    """The decision about one variant, and the values it rests on."""

    variant: Variant
    wer: float
    """Fraction."""
    reference_wer: float
    """WER of the checkpoint in torch, on the same utterances."""
    max_wer_rise: float
    """The bound, absolute: 0.01 is one point."""
    metric: Headline = "wer"
    """What the three are rates of, in spite of their names: cer in languages without spaces."""

    @property
    def is_servable(self) -> bool:
        """Whether the rise of the rate is within the bound; false if the rate is not a number."""
        return self.wer - self.reference_wer <= self.max_wer_rise + 1e-12  # rates are quotients of counts


def raise_refused(decisions: Sequence[GateDecision], *, report: Path) -> None:
    """Raise an error for the first variant that was refused.

    Raises:
        ExportGateError: a variant whose error rate rose by more than its bound.
    """
    for decision in decisions:
        if not decision.is_servable:
            rates = (decision.wer, decision.reference_wer, decision.max_wer_rise)
            raise ExportGateError(decision.variant, *rates, report, metric=decision.metric.upper())
