"""A recognizer's score for people (a table) and for programs (score.json)."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sottovoce.recognize.scoring import RecognizerScore
from sottovoce.text.group_score import GroupScore
from sottovoce.text.score import ErrorRate


def write_score(result: RecognizerScore, path: Path) -> None:
    """Write rates with counts and intervals, RTFx with its parts, and every hypothesis, as JSON."""
    values = {
        "recognizer": result.name,
        **asdict(result.score),
        "rtfx": result.rtfx,
        "rtfx_means": "audio seconds per second of recognition, log-mel included, decoding of files excluded",
        "audio_s": result.audio_s,
        "recognition_s": result.recognition_s,
        "groups": [group.model_dump() for group in result.groups],
        "hypotheses": result.hypotheses,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def score_table(result: RecognizerScore) -> str:
    """Give the rates as a plain-text table: percent, 95 % interval, and counts; then corpora and languages."""
    score = result.score
    rates = [
        (f"WER ({score.normalizer})", score.wer),
        ("WER (raw)", score.wer_raw),
        (f"CER ({score.normalizer})", score.cer),
        ("CER (raw)", score.cer_raw),
    ]
    rows = [("rate", "percent", "95 % interval", "subst.", "delet.", "insert.", "of"), *(_row(*rate) for rate in rates)]
    heading = (
        f"{result.name}: {result.num_utterances} utterances, {result.audio_s:.0f} s of audio, RTFx {result.rtfx:.1f}"
    )
    return "\n".join([heading, *_columns(rows), *_group_lines(result.groups)])


def _group_lines(groups: Sequence[GroupScore]) -> list[str]:
    header = ("group", "name", "utterances", "words", "WER percent", "95 % interval", "CER percent", "normalizer")
    rows = [
        (
            *(group.kind, group.name, str(group.num_utterances), str(group.num_words), f"{100 * group.wer:.2f}"),
            *(_interval(group.wer_low, group.wer_high), f"{100 * group.cer:.2f}", group.normalizer),
        )
        for group in groups
    ]
    return _columns([header, *rows]) if rows else []


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(name: str, rate: ErrorRate) -> tuple[str, ...]:
    counts = (rate.substitutions, rate.deletions, rate.insertions, rate.num_reference)
    interval = _interval(rate.low, rate.high)
    return (name, f"{100 * rate.rate:.2f}", interval, *(str(count) for count in counts))


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.2f} - {100 * high:.2f}"
