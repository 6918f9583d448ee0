"""Print a score: its rates, and what its report says, as aligned tables."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from sottovoce.recognize.scoring import RecognizerScore
from sottovoce.scores.formatting import Formatting, differ_in_digits
from sottovoce.scores.mistakes import NUM_LISTED, TermRecall
from sottovoce.scores.report import ScoreReport
from sottovoce.text.group_score import GroupScore
from sottovoce.text.score import ErrorRate, describe_headline

_MOST_GROUPS = 20  # of a kind that are printed; the file has all
_MOST_LOOPS = 5
_LONGEST_PHRASE = 60  # characters


def format_score(result: RecognizerScore, report: ScoreReport) -> str:
    """Format a score as plain text: rates, groups, mistakes and, at the end, what to quote and the verdict."""
    parts = [
        _rates(result),
        *_groups(report),
        _invented(report),
        _formatting(report.formatting),
        _loops(report),
        _substitutions(report),
        _terms(report),
        "\n".join(_conclusions(result, report)),
    ]
    return "\n\n".join(part for part in parts if part)


def align_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of equally many cells as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _rates(result: RecognizerScore) -> str:
    score = result.score
    rates = [
        (f"WER ({score.normalizer})", score.wer),
        ("WER (as written)", score.wer_raw),
        (f"CER ({score.normalizer})", score.cer),
        ("CER (as written)", score.cer_raw),
    ]
    header = ("rate", "percent", "95 % interval", "subst.", "delet.", "insert.", "of")
    rows = [header, *(_rate_row(*rate) for rate in rates), *_metric_rows(result)]
    heading = (
        f"{result.name}: {result.num_utterances} utterances, {result.audio_s:.0f} s of audio, RTFx {result.rtfx:.1f}",
        f"decoded as {result.decoding}",
    )
    return "\n".join([*heading, *align_columns(rows)])


def _rate_row(name: str, rate: ErrorRate) -> tuple[str, ...]:
    counts = (rate.substitutions, rate.deletions, rate.insertions, rate.num_reference)
    interval = _interval(rate.low, rate.high)
    return (name, f"{100 * rate.rate:.2f}", interval, *(str(count) for count in counts))


def _metric_rows(result: RecognizerScore) -> list[tuple[str, ...]]:
    """Format the metrics that are not in the score; a metric without interval or counts leaves their cells empty."""
    rows = []
    for name, values in result.metrics.items():
        if name not in ("wer", "cer"):
            has_interval = f"{name}_low" in values and f"{name}_high" in values
            interval = _interval(values[f"{name}_low"], values[f"{name}_high"]) if has_interval else ""
            counts = (values.get(key, "") for key in ("substitutions", "deletions", "insertions", "num_reference"))
            label = f"{name.upper()} ({result.score.normalizer})"
            rows.append((label, f"{100 * values[name]:.2f}", interval, *(str(count) for count in counts)))
    return rows


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.2f} - {100 * high:.2f}"


def _groups(report: ScoreReport) -> Iterator[str]:
    """Format a table for each kind of group; of the speakers, the worst."""
    for kind, members in groupby(report.groups, key=lambda one: one.kind):
        groups = list(members)
        if kind == "speaker":
            shown, note = report.worst_speakers, f"the worst of {len(groups)}"
        else:
            shown, note = groups[:_MOST_GROUPS], f"the first {_MOST_GROUPS} of {len(groups)}"
        if shown:
            heading = f"by {kind}" + (f", {note}" if len(shown) < len(groups) else "")
            header = (kind, "utterances", "rate", "percent", "95 % interval", "errors", "of", "normalizer")
            yield "\n".join([heading, *align_columns([header, *map(_group_row, shown)])])


def _group_row(group: GroupScore) -> tuple[str, ...]:
    """Format a group; one without any reference text has errors, but no rate."""
    rate = (f"{100 * group.error_rate:.2f}", _interval(*group.error_interval)) if group.num_units else ("-", "-")
    unit = "characters" if group.headline == "cer" else "words"
    counts = (str(group.num_errors), f"{group.num_units} {unit}")
    return (group.name, str(group.num_utterances), group.rate_name, *rate, *counts, group.normalizer)


def _invented(report: ScoreReport) -> str:
    if not report.invented:
        return ""
    header = ("without speech", "utterances", "with words", "minutes", "invented", "per minute")
    rows = [
        (
            *(one.name, str(one.num_utterances), str(one.num_with_words)),
            *(f"{one.minutes:.1f}", str(one.num_words), f"{one.words_per_minute:.2f}"),
        )
        for one in report.invented
    ]
    return "\n".join(["invented in recordings without reference text", *align_columns([header, *rows])])


def _formatting(formatting: Formatting) -> str:
    rows: list[tuple[str, ...]] = [("formatting", "percent", "errors", "of")]
    if formatting.casing_error_rate is not None:
        counts = (str(formatting.num_casing_errors), f"{formatting.num_cased} words right but for casing")
        rows.append(("casing errors", f"{100 * formatting.casing_error_rate:.2f}", *counts))
    if formatting.punctuation_error_rate is not None:
        counts = (str(formatting.num_mark_errors), f"{formatting.num_marks} marks in either text")
        rows.append(("punctuation errors", f"{100 * formatting.punctuation_error_rate:.2f}", *counts))
    rows.append(("digits, references", f"{100 * formatting.reference_digits:.2f}", "", "letters and digits"))
    rows.append(("digits, hypotheses", f"{100 * formatting.hypothesis_digits:.2f}", "", "letters and digits"))
    return "\n".join(align_columns(rows))


def _loops(report: ScoreReport) -> str:
    if not report.loops:
        return "loops: no hypothesis repeats a phrase without end"
    rows = [(one.id, f"{one.num_times} times", one.phrase[:_LONGEST_PHRASE]) for one in report.loops[:_MOST_LOOPS]]
    return "\n".join([f"loops: {len(report.loops)} hypotheses repeat a phrase", *align_columns(rows)])


def _substitutions(report: ScoreReport) -> str:
    often = [one for one in report.substitutions if one.count > 1]
    if not often:
        return "substitutions: none was made twice"
    rows = [(f"{one.count} times", one.reference, "as", one.hypothesis) for one in often[: NUM_LISTED // 2]]
    return "\n".join(["substitutions most often made", *align_columns(rows)])


def _terms(report: ScoreReport) -> str:
    if not report.terms:
        return ""
    num_said, num_recognized = (sum(counts) for counts in zip(*map(_term_counts, report.terms), strict=True))
    what = "terms" if report.has_given_terms else "words that the tokenizer cuts into most pieces"
    recall = f"{num_recognized} of {num_said} recognized ({num_recognized / num_said:.1%})"
    rows = [(one.term, f"{one.num_recognized} of {one.num_said}") for one in report.terms[: NUM_LISTED // 2]]
    heading = f"{what}: {len(report.terms)}, {recall}; those missed most"
    return "\n".join([heading, *align_columns(rows)])


def _term_counts(term: TermRecall) -> tuple[int, int]:
    return term.num_said, term.num_recognized


def _conclusions(result: RecognizerScore, report: ScoreReport) -> Iterator[str]:
    if report.formatting.drift is not None:
        yield f"warning: {report.formatting.drift}"
    if report.verdict is not None:
        yield from _drift_between_models(report.formatting.hypothesis_digits, report.verdict.against_digits)
    if result.unreadable:
        yield f"warning: {len(result.unreadable)} recordings could not be read and are left out; see left_out"
    yield describe_headline(result.score)
    if report.verdict is not None:
        yield f"verdict: {report.verdict.sentence}"


def _drift_between_models(share: float, other: float) -> Iterator[str]:
    if differ_in_digits(share, other):
        shares = f"digits are {share:.1%} of the letters and digits of this model and {other:.1%} of the other's"
        yield f"warning: {shares}; one of them writes numbers as words"
