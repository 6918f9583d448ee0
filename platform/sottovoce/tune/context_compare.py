"""Train each context, score it with every engine, and compare; finished runs and exports are not repeated."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import TypeAlias

from sottovoce.atomic_write import atomic_write
from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.export.exporter import TABLE_FILE, ExportConfig, export_checkpoint
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import read_model_config
from sottovoce.model.source import resolve_folder
from sottovoce.model.variants import VARIANT_RECORD_FILE, Variant
from sottovoce.publish.outcome import save_result
from sottovoce.recognize.load import load_recognizer, root_folder
from sottovoce.recognize.scoring import RecognizerScore, score_recognizer
from sottovoce.schema import Reject
from sottovoce.text.group_score import name_normalizer
from sottovoce.text.normalize import read_spelling
from sottovoce.text.paired import compare_wer
from sottovoce.train.record import RECORD_FILE, TrainingRecord
from sottovoce.train.run import TrainingRun, run_training
from sottovoce.tune.context_plan import ContextSearch, name_context
from sottovoce.tune.context_record import (
    CONTEXTS_FILE,
    Comparison,
    ContextRecord,
    ContextResult,
    EngineScore,
    describe_verdict,
)

logger = logging.getLogger(__name__)
_exporter_logger = logging.getLogger(export_checkpoint.__module__)

TORCH = "torch"
_EXPORT_FOLDER = "export"
_EXPORTED = "exported"  # marker, written last
_NO_GATE = 1e9  # a variant that lost accuracy is reported here, not refused


Scores: TypeAlias = dict[tuple[int, str, int], list[RecognizerScore]]
"""Scores of all repeats, by index of the context, engine, and index of the seed."""


def run_context_search(search: ContextSearch, *, prepare_rejects: Sequence[Reject]) -> ContextRecord:
    """Train, export, score and compare, and write ``contexts.json``.

    Args:
        search: the comparison to run.
        prepare_rejects: rows rejected by the preparation, for the runs' records.

    Raises:
        SottovoceError: a run failed; the error says what to do.
    """
    records = [tuple(_train(run, prepare_rejects) for run in arm.runs) for arm in search.arms]
    for arm in search.arms:
        for run in arm.runs:
            _export(run, search.config.variants)
    record = build_record(search, records, _score_all(search))
    atomic_write(search.output / CONTEXTS_FILE, record.model_dump_json(indent=2) + "\n")
    logger.info("%s", record.verdict)
    return record


def _train(run: TrainingRun, prepare_rejects: Sequence[Reject]) -> TrainingRecord:
    path = run.task.output / RECORD_FILE
    if path.is_file():
        record = TrainingRecord.model_validate_json(path.read_text(encoding="utf-8"))
        if record.is_finished:
            logger.info("%s was trained before", run.task.output)
            return record
    assert run.config.audio_context_s is not None, "build_context_search sets the context"
    logger.info("training with a context of %s, seed %d", name_context(run.config.audio_context_s), run.config.seed)
    run_training(run)
    return save_result(run, prepare_rejects=prepare_rejects)


@dataclass(frozen=True)
class _Unscored:
    """Placeholder for the exporter's own score; all models are scored later, in turn."""

    wer: float = 0.0
    cer: float = 0.0
    rtfx: float = 0.0
    num_utterances: int = 0


def _export(run: TrainingRun, variants: tuple[Variant, ...]) -> None:
    folder = run.task.output / _EXPORT_FOLDER
    if not variants or (folder / _EXPORTED).is_file():
        return
    logger.info("exporting %s", run.task.output / MODEL_FOLDER)
    _exporter_logger.setLevel(logging.WARNING)  # it would log the placeholder score
    config = ExportConfig(variants=variants, max_wer_rise=_NO_GATE)
    export_checkpoint(config, run.task.output / MODEL_FOLDER, folder, score=lambda _folder, _variant: _Unscored())
    for record in (folder / TABLE_FILE, *(folder / variant / VARIANT_RECORD_FILE for variant in variants)):
        record.unlink()  # these exports are for scoring only: no record may say that one passed the gate
    (folder / _EXPORTED).touch()


def _score_all(search: ContextSearch) -> Scores:
    """Score all models in turn, as often as configured, so that a busy minute of the machine affects all alike."""
    scorers = {
        (index, engine, seed): _scorer(search, run, engine)
        for index, arm in enumerate(search.arms)
        for engine in (TORCH, *search.config.variants)
        for seed, run in enumerate(arm.runs)
    }
    scores: Scores = {key: [] for key in scorers}
    for _ in range(search.config.scoring_repeats):
        for key, score in scorers.items():
            scores[key].append(score())
    return scores


def _scorer(search: ContextSearch, run: TrainingRun, engine: str) -> Callable[[], RecognizerScore]:
    """Load a model once, and return a function that scores it."""
    config = search.config
    folder: Path = run.task.output / (MODEL_FOLDER if engine == TORCH else _EXPORT_FOLDER)
    recognizer = load_recognizer(folder, variant=engine, num_threads=config.num_threads)
    spelling = read_spelling(root_folder(folder, engine))
    return lambda: score_recognizer(
        recognizer,
        search.utterances,
        normalizer=search.training.normalizer,
        batch_size=config.batch_size,
        spelling=spelling,
    )


def build_record(search: ContextSearch, records: Sequence[Sequence[TrainingRecord]], scores: Scores) -> ContextRecord:
    """Build the record of a comparison.

    Args:
        search: the comparison.
        records: for each context, one for each seed.
        scores: those of every model.
    """
    base = AudioContext.of(read_model_config(resolve_folder(search.training.base)))
    results = [_summarize(search, index, of_context, scores) for index, of_context in enumerate(records)]
    comparisons = [
        _compare(search, results, index, score.engine, scores)
        for index, result in enumerate(results)
        for score in result.scores
        if index > 0
    ]
    return ContextRecord(
        search=search.config,
        training=search.training,
        base_context_s=(base.min_s, base.max_s),
        num_utterances=len(search.utterances),
        num_words=scores[0, TORCH, 0][0].score.wer.num_reference,
        scored_hours=sum(one.duration_s for one in search.utterances) / 3600,
        normalizer=name_normalizer(search.utterances, search.training.normalizer),
        results=tuple(results),
        comparisons=tuple(comparisons),
        verdict=describe_verdict(
            results, [one for one in comparisons if one.engine == TORCH], bound=search.config.max_wer_rise
        ),
    )


def _summarize(search: ContextSearch, index: int, records: Sequence[TrainingRecord], scores: Scores) -> ContextResult:
    return ContextResult(
        context_s=search.arms[index].context_s,
        seeds=tuple(record.training.seed for record in records),
        curves=tuple(record.rows for record in records),
        num_steps=records[0].num_steps,
        training_s=sum(record.step_s for record in records),
        data_wait_s=sum(record.data_wait_s for record in records),
        trained_audio_s=sum(record.audio_s for record in records),
        scores=tuple(
            _summarize_engine(engine, [scores[index, engine, seed] for seed in range(len(records))])
            for engine in (TORCH, *search.config.variants)
        ),
    )


def _summarize_engine(engine: str, of_seeds: Sequence[Sequence[RecognizerScore]]) -> EngineScore:
    first = [repeats[0] for repeats in of_seeds]  # greedy decoding is deterministic; only the time differs
    return EngineScore(
        engine=engine,
        wer=mean(score.wer for score in first),
        wer_low=first[0].score.wer.low,
        wer_high=first[0].score.wer.high,
        cer=mean(score.cer for score in first),
        rtfx=median(score.rtfx for repeats in of_seeds for score in repeats),
    )


def _compare(
    search: ContextSearch, results: Sequence[ContextResult], index: int, engine: str, scores: Scores
) -> Comparison:
    def texts(of: int) -> list[list[str]]:
        return [list(scores[of, engine, seed][0].hypotheses.values()) for seed in range(search.config.num_seeds)]

    reference, result = results[0], results[index]
    change = compare_wer(
        search.utterances,
        texts(0),
        texts(index),
        normalizer=search.training.normalizer,
        spelling=read_spelling(resolve_folder(search.training.base)),
    )
    return Comparison(
        context_s=result.context_s,
        reference_s=reference.context_s,
        engine=engine,
        wer_rise=change.difference,
        low=change.low,
        high=change.high,
        training_speedup=result.training_speed / reference.training_speed,
        recognition_speedup=result.score_of(engine).rtfx / reference.score_of(engine).rtfx,
        bound=search.config.max_wer_rise,
        metric=change.metric,
    )
