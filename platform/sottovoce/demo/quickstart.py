"""The quickstart up to serving: synthesize dictation, score the base model, fine-tune, export, gate.

Speech synthesis, scoring of the base model and the start of the server use one core each, so each runs beside another
stage.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.config import Config
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.mixing import Speech, read_speech
from sottovoce.data.prepare import PrepareConfig, check_rejects, prepare_corpus
from sottovoce.demo.dictation import DictationConfig, make_dictation
from sottovoce.demo.stages import Stages
from sottovoce.export.exporter import ExportConfig, ExportReport, export_checkpoint
from sottovoce.model.source import MICRO
from sottovoce.publish.outcome import save_result
from sottovoce.recognize.scoring import RecognizerScore, score_folder
from sottovoce.report.corpus.page import write_report
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord
from sottovoce.train.run import build_run, run_training

logger = logging.getLogger(__name__)


class WalkConfig(Config):
    """Settings of each stage."""

    dictation: DictationConfig = DictationConfig()
    prepare: PrepareConfig = PrepareConfig()
    training: TrainingConfig = TrainingConfig()
    batch_size: int = 16
    """Utterances of one worker at one optimizer step."""
    export: ExportConfig = ExportConfig()


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Results of the stages."""

    test: Sequence[Utterance]
    baseline: RecognizerScore
    """Score of the embedded base model on the test utterances."""
    training: TrainingRecord
    export: ExportReport
    export_folder: Path


def walk(
    config: WalkConfig,
    output: Path,
    *,
    start_ray: Callable[[], None],
    start_server: Callable[[], None],
    stages: Stages,
) -> Walk:
    """Run every stage up to serving.

    Args:
        config: settings of each stage.
        output: receives ``corpus/``, ``data/``, ``micro-dictation/`` and ``export/``.
        start_ray: called once, while the speech is made.
        start_server: called once, while the export is made and scored.
        stages: receives the seconds of each stage.

    Raises:
        SottovoceError: a stage that failed says what to do.
    """
    with ThreadPoolExecutor(max_workers=1) as beside:
        corpus = beside.submit(stages.run, "dictation", partial(make_dictation, output / "corpus", config.dictation))
        stages.run("Ray", start_ray)
        stages.run("prepare", partial(_prepare, config.prepare, corpus.result(), output / "data"))
        data = DatasetConfig(manifest=(output / "data" / "manifest.jsonl",), batch_size=config.batch_size)
        speech = read_speech(data.manifest)
        test = speech.split("test")
        score = partial(score_folder, utterances=test, normalizer=config.training.normalizer)
        logger.info("measuring the base model on %d test utterances; it has never heard a throat microphone", len(test))
        baseline = beside.submit(stages.run, "baseline", partial(score, MICRO, "torch"))
        train = partial(_train, config.training, speech=speech, data=data, output=output / "micro-dictation")
        training = stages.run("training", train)
        server = beside.submit(stages.run, "server", start_server)
        checkpoint, folder = output / "micro-dictation" / MODEL_FOLDER, output / "export"
        export = stages.run("export", partial(export_checkpoint, config.export, checkpoint, folder, score=score))
        server.result()
        return Walk(test=test, baseline=baseline.result(), training=training, export=export, export_folder=folder)


def _prepare(config: PrepareConfig, corpus: Path, folder: Path) -> None:
    """Write manifest, rejects and report."""
    prepared = prepare_corpus(corpus, folder, config)
    write_report(prepared, folder)
    check_rejects(prepared, folder, config)


def _train(config: TrainingConfig, *, speech: Speech, data: DatasetConfig, output: Path) -> TrainingRecord:
    """Fine-tune, and publish the best checkpoint in the output folder."""
    stream, validation = build_stream(speech, data), speech.split("validation")
    run = build_run(config, train=stream, validation=validation, output=output)
    run_training(run)
    return save_result(run, prepare_rejects=[])
