"""The quickstart's walk up to serving: dictation, baseline, fine-tuning, export and gate."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sottovoce.config import Config
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.mixing import read_speech
from sottovoce.data.prepare import PrepareConfig, check_rejects, prepare_corpus
from sottovoce.demo.dictation import DictationConfig, make_dictation
from sottovoce.export.exporter import ExportConfig, ExportReport, export_checkpoint
from sottovoce.model.checkpoint import MICRO
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
    """Utterances of one worker at one step."""
    export: ExportConfig = ExportConfig()


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What the stages left behind."""

    test: list[Utterance]
    baseline: RecognizerScore
    """Of the embedded base model on the test utterances."""
    training: TrainingRecord
    export: ExportReport
    export_folder: Path


def walk(config: WalkConfig, output: Path) -> Walk:
    """Run every stage up to serving, on the running Ray.

    Args:
        config: settings of each stage.
        output: receives ``corpus/``, ``data/``, ``micro-dictation/`` and ``export/``.

    Raises:
        SottovoceError: a stage that failed says what to do.
    """
    corpus = make_dictation(output / "corpus", config.dictation)
    prepared = prepare_corpus(corpus, output / "data", config.prepare)
    write_report(prepared, output / "data")
    check_rejects(prepared, output / "data", config.prepare)
    data = DatasetConfig(manifest=(output / "data" / "manifest.jsonl",), batch_size=config.batch_size)
    speech = read_speech(data.manifest)
    test = speech.split("test")
    score = partial(score_folder, utterances=test, normalizer=config.training.normalizer)
    logger.info("measuring the base model on %d test utterances; it has never heard a throat microphone", len(test))
    baseline = score(MICRO, "torch")
    run = build_run(
        config.training,
        train=build_stream(speech, data),
        validation=speech.split("validation"),
        output=output / "micro-dictation",
    )
    run_training(run)
    training = save_result(run, prepare_rejects=[])
    export = export_checkpoint(config.export, output / "micro-dictation" / "checkpoint", output / "export", score=score)
    return Walk(test=test, baseline=baseline, training=training, export=export, export_folder=output / "export")
