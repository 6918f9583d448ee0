"""Diagnose a run: collect all findings, the gravest first."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, get_args

from sottovoce.report.diagnosis.finding import Finding, FindingName, Severity
from sottovoce.report.diagnosis.groups import find_worse_groups
from sottovoce.report.diagnosis.learning_rate import find_rate_too_high, find_rate_too_low, find_short_warmup
from sottovoce.report.diagnosis.operation import (
    find_data_wait,
    find_lost_loss_scale,
    find_rejects,
    find_skipped_steps,
    find_unusual_settings,
)
from sottovoce.report.diagnosis.outcome import (
    find_few_evaluations,
    find_no_gain,
    find_plateau,
    find_rising_loss,
    find_rising_wer,
    find_still_improving,
    find_uncertain_gain,
)
from sottovoce.train.metrics.curves import CurvePoint
from sottovoce.train.record import TrainingRecord

logger = logging.getLogger(__name__)

_OF_THE_RECORD: Final[tuple[Callable[[TrainingRecord], Finding | None], ...]] = (
    find_no_gain,
    find_worse_groups,
    find_rising_wer,
    find_uncertain_gain,
    find_rising_loss,
    find_rate_too_low,
    find_plateau,
    find_still_improving,
    find_few_evaluations,
    find_rejects,
    find_unusual_settings,
)
_OF_THE_CURVES: Final[tuple[Callable[[TrainingRecord, Sequence[CurvePoint]], Finding | None], ...]] = (
    find_rate_too_high,
    find_short_warmup,
    find_lost_loss_scale,
    find_skipped_steps,
    find_data_wait,
)
_COVERED_BY: Final[Mapping[FindingName, frozenset[FindingName]]] = {
    "wer_rises": frozenset({"worse_than_the_base", "learning_rate_too_high"}),
    "wer_stopped_falling": frozenset({"worse_than_the_base", "learning_rate_too_high", "wer_rises"}),
    "learning_rate_too_low": frozenset({"learning_rate_too_high"}),
    "gain_uncertain": frozenset({"worse_than_the_base"}),
    "warmup_too_short": frozenset({"learning_rate_too_high"}),
    "steps_skipped": frozenset({"loss_scale_collapsed"}),
}
"""Findings that a graver one covers."""

_SEVERITIES = get_args(Severity)
_NAMES = get_args(FindingName)


def diagnose(record: TrainingRecord, curves: Sequence[CurvePoint]) -> tuple[Finding, ...]:
    """Return what the metrics of a run show and which settings to change, the gravest finding first.

    Args:
        record: of the run, finished or not. Without an evaluation there are no findings.
        curves: the logged points. Without them, findings that need them are left out.
    """
    if not record.rows:
        return ()
    found = [check(record) for check in _OF_THE_RECORD] + [check(record, curves) for check in _OF_THE_CURVES]
    findings = [finding for finding in found if finding is not None]
    names = {finding.name for finding in findings}
    kept = [finding for finding in findings if names.isdisjoint(_COVERED_BY.get(finding.name, ()))]
    return tuple(sorted(kept, key=lambda finding: (_SEVERITIES.index(finding.severity), _NAMES.index(finding.name))))


def log_findings(findings: Sequence[Finding]) -> None:
    """Log each finding in one line."""
    for finding in findings:
        level = logging.INFO if finding.severity == "note" else logging.WARNING
        logger.log(level, "%s", finding.describe())
