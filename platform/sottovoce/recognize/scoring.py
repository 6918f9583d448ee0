"""Score a recognizer on a manifest: word and character error rates, and speed; print and store the score."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import window_spans
from sottovoce.errors import ManifestError
from sottovoce.model.variants import Device
from sottovoce.recognize.load import load_recognizer, root_folder
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Split, Utterance, Waveform
from sottovoce.text.group_score import GroupScore, normalize_pairs, score_utterances
from sottovoce.text.normalize import Normalizer, read_spelling
from sottovoce.text.score import ErrorRate, Score

if TYPE_CHECKING:  # importing the evaluate library takes seconds
    from sottovoce.text.metrics import MetricName

logger = logging.getLogger(__name__)

_UTTERANCES_AT_ONCE = 256  # in memory: 256 of 30 s take 0.5 GB
_PROGRESS_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class RecognizerScore:
    """Error rates and speed of a recognizer on a set of utterances."""

    name: str
    """The recognizer's name."""
    score: Score
    audio_s: float
    recognition_s: float
    """Seconds of recognition; includes log-mel features, excludes reading and decoding of files."""
    hypotheses: dict[str, str]
    """The recognized text by utterance id."""
    groups: tuple[GroupScore, ...] = ()
    """Scores by corpus and language, if there are several."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Further metrics by name, with what each computed; see ``text/metrics.py``."""

    @property
    def rtfx(self) -> float:
        """Audio seconds per second of recognition; see ``recognition_s``."""
        return self.audio_s / max(self.recognition_s, 1e-9)

    @property
    def wer(self) -> float:
        """Word error rate after normalization, a fraction."""
        return self.score.wer.rate

    @property
    def cer(self) -> float:
        """Character error rate after normalization, a fraction."""
        return self.score.cer.rate

    @property
    def num_utterances(self) -> int:
        """Utterances scored."""
        return len(self.hypotheses)


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Where and how a recognizer computes while it is scored."""

    device: Device = "auto"
    num_threads: int = 1
    """CPU threads."""
    batch_size: int = 8
    """Windows recognized at once."""


def score_folder(
    folder: str | Path,
    variant: str,
    *,
    utterances: Sequence[Utterance],
    normalizer: Normalizer,
    computing: Computing | None = None,
    metrics: "Sequence[MetricName]" = (),
) -> RecognizerScore:
    """Load a variant (see ``load_recognizer``) and score it, also by the ``metrics`` named; see ``score_recognizer``.

    Raises:
        CheckpointError: a variant that cannot be loaded.
        AudioError: a recording that cannot be read.
        ConfigError: a device that the variant does not run on.
        ManifestError: no utterances.
    """
    computing = computing or Computing()
    recognizer = load_recognizer(folder, variant=variant, num_threads=computing.num_threads, device=computing.device)
    spelling = read_spelling(root_folder(folder, variant))
    result = score_recognizer(
        recognizer, utterances, normalizer=normalizer, batch_size=computing.batch_size, spelling=spelling
    )
    if not metrics:
        return result
    from sottovoce.text.metrics import compute_metrics

    hypotheses = list(result.hypotheses.values())
    normalized = normalize_pairs(utterances, hypotheses, normalizer=normalizer, spelling=spelling)
    return replace(result, metrics=compute_metrics(metrics, normalized))


def score_recognizer(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    normalizer: Normalizer,
    batch_size: int = 8,
    language: str | None = None,
    temperatures: tuple[float, ...] = (0.0,),
    spelling: Mapping[str, str] | None = None,
) -> RecognizerScore:
    """Recognize utterances and compare the texts with the references.

    The shortest utterances come first, so that those of a batch are of similar length.

    Args:
        recognizer: the engine.
        utterances: with absolute audio paths, as ``read_manifest`` returns them. Those longer than the model's context
            are cut at silences.
        normalizer: applied to both texts; ``english`` is replaced by ``basic`` for other languages. The score names it.
        batch_size: windows per call of the engine.
        language: decode all in this language; None uses each utterance's own.
        temperatures: see ``DecodeOptions``; the service falls back, by default a score does not.
        spelling: see ``normalize``.

    Raises:
        AudioError: a recording that cannot be read.
        ManifestError: no utterances.
        LanguageError: a language the model does not know.
    """
    if not utterances:
        raise ManifestError("utterances", "there is nothing to score; check the split")
    hypotheses: dict[str, str] = {}
    audio_s = recognition_s = 0.0
    last_message = time.monotonic()
    for group in _groups(sorted(utterances, key=lambda one: one.duration_s)):
        waveforms = [read_audio(one.audio, start_s=one.start_s, duration_s=one.duration_s) for one in group]
        started = time.perf_counter()
        base = DecodeOptions(temperatures=temperatures)
        options = [replace(base, language=language or one.language, task=one.task) for one in group]
        recognized = _recognize(recognizer, waveforms, options, batch_size=batch_size)
        recognition_s += time.perf_counter() - started
        audio_s += sum(waveform.shape[0] for waveform in waveforms) / SAMPLING_RATE
        hypotheses.update(zip((utterance.id for utterance in group), recognized, strict=True))
        if time.monotonic() - last_message > _PROGRESS_EVERY_S:
            last_message = time.monotonic()
            logger.info("%s: recognized %d of %d utterances", recognizer.name, len(hypotheses), len(utterances))
    ordered = {utterance.id: hypotheses[utterance.id] for utterance in utterances}
    scored = score_utterances(utterances, list(ordered.values()), normalizer=normalizer, spelling=spelling)
    result = RecognizerScore(
        name=recognizer.name,
        score=scored.score,
        groups=scored.groups,
        audio_s=audio_s,
        recognition_s=recognition_s,
        hypotheses=ordered,
    )
    _log_summary(result)
    return result


def select_split(utterances: Sequence[Utterance], split: Split, *, limit: int | None = None) -> list[Utterance]:
    """Return the first utterances of one split, at most ``limit``.

    Raises:
        ManifestError: a split without utterances.
    """
    chosen = [utterance for utterance in utterances if utterance.split == split][:limit]
    if not chosen:
        raise ManifestError(f"split {split}", "the manifest has no utterance in it")
    return chosen


def _groups(utterances: Sequence[Utterance]) -> Iterator[Sequence[Utterance]]:
    for first in range(0, len(utterances), _UTTERANCES_AT_ONCE):
        yield utterances[first : first + _UTTERANCES_AT_ONCE]


def _recognize(
    recognizer: Recognizer, waveforms: Sequence[Waveform], options: Sequence[DecodeOptions], *, batch_size: int
) -> list[str]:
    """Cut waveforms into windows, recognize them in batches across waveforms, and join the texts of each."""
    windows: list[tuple[int, Waveform]] = []
    for index, waveform in enumerate(waveforms):
        spans = window_spans(waveform, max_window_s=recognizer.context.max_s)
        windows.extend((index, waveform[start:end]) for start, end in spans)
    texts: list[list[str]] = [[] for _ in waveforms]
    for first in range(0, len(windows), batch_size):
        batch = windows[first : first + batch_size]
        results = recognizer.recognize([window for _, window in batch], [options[index] for index, _ in batch])
        for (index, _), result in zip(batch, results, strict=True):
            texts[index].append(result.text)
    return [" ".join(text for text in parts if text) for parts in texts]


def _log_summary(result: RecognizerScore) -> None:
    logger.info(
        "%s: WER %.2f %%, CER %.2f %% (%s), RTFx %.1f, %d utterances, %.0f s of audio in %.1f s",
        *(result.name, 100 * result.wer, 100 * result.cer, result.score.normalizer, result.rtfx),
        *(result.num_utterances, result.audio_s, result.recognition_s),
    )


def write_score(result: RecognizerScore, path: Path) -> None:
    """Write rates with counts and intervals, RTFx, and every hypothesis as JSON."""
    values = {
        "recognizer": result.name,
        **asdict(result.score),
        "rtfx": result.rtfx,
        "rtfx_means": "audio seconds per second of recognition, log-mel included, decoding of files excluded",
        "audio_s": result.audio_s,
        "recognition_s": result.recognition_s,
        "metrics": result.metrics,
        "groups": [group.model_dump() for group in result.groups],
        "hypotheses": result.hypotheses,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def score_table(result: RecognizerScore) -> str:
    """Format the rates as a plain-text table with 95 % intervals and counts, then those of corpora and languages."""
    score = result.score
    rates = [
        (f"WER ({score.normalizer})", score.wer),
        ("WER (raw)", score.wer_raw),
        (f"CER ({score.normalizer})", score.cer),
        ("CER (raw)", score.cer_raw),
    ]
    header = ("rate", "percent", "95 % interval", "subst.", "delet.", "insert.", "of")
    rows = [header, *(_row(*rate) for rate in rates), *_metric_rows(result)]
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
