"""Everything a score says beside its rates, and its JSON file."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from sottovoce.atomic_write import atomic_write
from sottovoce.recognize.scoring import RecognizerScore
from sottovoce.schema import Record
from sottovoce.scores.breakdown import worst_speakers
from sottovoce.scores.formatting import Formatting
from sottovoce.scores.mistakes import Invented, Loop, Substitution, TermRecall
from sottovoce.scores.verdict import Verdict
from sottovoce.text.group_score import GroupScore

_RTFX_MEANS = "audio seconds per second of recognition, log-mel included, decoding of files excluded"


class ScoreReport(Record):
    """Where and how a model errs, and how it compares."""

    groups: tuple[GroupScore, ...]
    """Error rates by corpus, language, speaker, duration, SNR and the columns asked for."""
    formatting: Formatting
    loops: tuple[Loop, ...]
    invented: tuple[Invented, ...]
    """Words in recordings without speech; empty if there are no such recordings."""
    substitutions: tuple[Substitution, ...]
    terms: tuple[TermRecall, ...]
    has_given_terms: bool
    """Whether somebody listed the terms; otherwise they are the words that the tokenizer cuts into most pieces."""
    verdict: Verdict | None = None
    """Against the other model; None without one."""

    @property
    def worst_speakers(self) -> list[GroupScore]:
        """The speakers with the highest error rates; see ``worst_speakers``."""
        return worst_speakers(self.groups)


def write_score(
    result: RecognizerScore, report: ScoreReport, path: Path, *, model: str, left_out: Mapping[str, str]
) -> None:
    """Write rates with counts and intervals, what the report says, and every hypothesis as JSON.

    Args:
        result: of the model.
        report: on the result.
        path: the file.
        model: the model's folder or id, with its variant.
        left_out: why rows were not scored, by id.
    """
    formatting = report.formatting
    values = {
        "model": model,
        "recognizer": result.name,
        "decoding": result.decoding,
        **asdict(result.score),
        "rtfx": result.rtfx,
        "rtfx_means": _RTFX_MEANS,
        "audio_s": result.audio_s,
        "recognition_s": result.recognition_s,
        "metrics": result.metrics,
        **report.model_dump(mode="json", exclude={"formatting"}),
        "worst_speakers": [one.name for one in report.worst_speakers],
        "formatting": {
            **formatting.model_dump(),
            "casing_error_rate": formatting.casing_error_rate,
            "punctuation_error_rate": formatting.punctuation_error_rate,
            "warning": formatting.drift,
        },
        "left_out": {**left_out, **result.unreadable},
        "snr_db": {one: None if snr is None else round(snr, 1) for one, snr in result.snrs_db.items()},
        "hypotheses": result.hypotheses,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
