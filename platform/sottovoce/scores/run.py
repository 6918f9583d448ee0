"""Score a model on a manifest or a corpus: recognize, break down, compare, write and print."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from sottovoce.config import Config
from sottovoce.errors import ConfigError
from sottovoce.model.tokenizer import read_tokenizer
from sottovoce.model.variants import Device
from sottovoce.recognize.hypotheses import Algorithm, HowDecoded, Recognition
from sottovoce.recognize.load import root_folder
from sottovoce.recognize.scoring import Computing, RecognizerScore, count_cores, score_folder
from sottovoce.schema import Split, Utterance
from sottovoce.scores.breakdown import break_down
from sottovoce.scores.formatting import measure_formatting
from sottovoce.scores.mistakes import (
    count_invented,
    count_substitutions,
    find_loops,
    find_rare_words,
    recall_terms,
)
from sottovoce.scores.report import ScoreReport, write_score
from sottovoce.scores.scored import ScoredUtterance, align_score
from sottovoce.scores.speech import Columns, SpeechQuery, read_speech
from sottovoce.scores.tables import format_score
from sottovoce.scores.verdict import OtherScore, Verdict, judge, read_score
from sottovoce.text.metrics import MetricName
from sottovoce.text.normalize import Normalizer, read_spelling
from sottovoce.text.score import describe_headline

logger = logging.getLogger(__name__)


class ScoreConfig(Config):
    """What is scored, how it is decoded, and what the score says."""

    model: str
    """Checkpoint folder or Hub id, or an export folder."""
    manifest: str
    """Speech to score on: a manifest.jsonl, or a folder or URI in one of prepare's layouts, such as Parquet on the Hub
    (hf://datasets/user/name), which is read as it is needed and not copied."""
    variant: str = "torch"
    """torch for a checkpoint; the name of a format such as int8 for an export."""
    split: Split = "test"
    """Utterances to score on."""
    language: str = "en"
    """Of a corpus that does not declare it; a manifest does."""
    max_utterances: int | None = Field(default=None, ge=1)
    """Score on the first so many only; None takes all."""
    normalizer: Normalizer = "auto"
    """How texts are made comparable before the rates: auto follows the language; see training.normalizer."""
    metrics: tuple[MetricName, ...] = ("wer", "cer")
    """Rates to write below metrics in the JSON file, as of the evaluate library: wer, cer, mer (match error rate), ser
    (sentence error rate)."""
    decoding: HowDecoded = "service"
    """service decodes as the service does: fallback temperatures, timestamps, speech detection; greedy decodes once at
    temperature 0, as training and the export gate do."""
    algorithm: Algorithm = "chunked"
    """Of the service's decoding: how recordings longer than the model's context are cut."""
    by: tuple[str, ...] = ()
    """Columns to break the score down by, beside corpus, language, speaker, duration and SNR: fields of the manifest,
    columns that prepare has kept, or those of ``columns``."""
    columns: Path | None = None
    """CSV or JSON lines with an id and further columns for --by."""
    terms: Path | None = None
    """Text file with a term of the domain on each line, whose recall is reported. None takes the words that the model's
    tokenizer cuts into most pieces."""
    against: str | None = None
    """Another model to compare with on the same utterances: its score.json, or a model, which is then scored, too."""
    against_variant: str | None = None
    """Of the other model; None for the same."""
    batch_size: int = Field(default=8, ge=1)
    """Windows recognized at once."""
    num_threads: int = Field(default_factory=count_cores, ge=1)
    """CPU threads of the recognizer. Default: all cores."""
    device: Device = "auto"
    """Where the recognizer runs; auto takes a GPU for the variants that run on one."""


@dataclass(frozen=True, kw_only=True)
class ModelScore:
    """A score with everything that is known of it."""

    name: str
    """The model's folder or id, with its variant."""
    result: RecognizerScore
    report: ScoreReport
    utterances: tuple[ScoredUtterance, ...]
    """Each with its alignment."""

    def describe(self) -> str:
        """Return the printed form."""
        return format_score(self.result, self.report)

    @property
    def headline(self) -> str:
        """The rate to quote, with what it was computed by and its interval."""
        return describe_headline(self.result.score)


def score_model(config: ScoreConfig, output: Path) -> ModelScore:
    """Score a model and write ``output``.

    The other model's score and the terms are read before anything is recognized, so that a wrong path is noticed at
    once. ``output`` is written before a second model is scored, and again with the verdict.

    Raises:
        CheckpointError: a variant that cannot be loaded.
        ConfigError: a device that the variant does not run on, a column that is nowhere, or terms that cannot be read.
        ManifestError: speech or a score that cannot be read, or nothing to score.
        StorageError: storage that does not answer.
    """
    query = SpeechQuery(split=config.split, limit=config.max_utterances, by=config.by, language=config.language)
    speech = read_speech(config.manifest, query, table=config.columns)
    terms = None if config.terms is None else _read_terms(config.terms)
    other = _read_other(config, speech.utterances)
    result = _score(config, config.model, config.variant, speech.utterances)
    scored = align_score(result, normalizer=config.normalizer, spelling=_spelling(config))
    report = _report(config, scored, terms=terms, columns=speech.columns)
    name = _name(config.model, config.variant)
    write_score(result, report, output, model=name, left_out=speech.left_out)
    if config.against is not None:
        other = other or _score_other(config, config.against, result.utterances)
        report = report.model_copy(update={"verdict": _judge(config, scored, result, other)})
        write_score(result, report, output, model=name, left_out=speech.left_out)
    logger.info("wrote %s", output)
    return ModelScore(name=name, result=result, report=report, utterances=scored)


def _read_other(config: ScoreConfig, utterances: Sequence[Utterance]) -> OtherScore | None:
    """Read the other model's score; None if there is no other one, or if it is a model that is to be scored.

    Raises:
        ManifestError: the score cannot be read, or lacks utterances.
        CheckpointError: there is no such model.
    """
    if config.against is None:
        return None
    if not config.against.endswith(".json"):
        root_folder(config.against, config.against_variant or config.variant)
        return None
    other = read_score(Path(config.against))
    other.require([one.id for one in utterances])
    return other


def _score(config: ScoreConfig, model: str, variant: str, utterances: Sequence[Utterance]) -> RecognizerScore:
    return score_folder(
        model,
        variant,
        utterances=utterances,
        normalizer=config.normalizer,
        computing=Computing(device=config.device, num_threads=config.num_threads, batch_size=config.batch_size),
        recognition=Recognition(
            decoding=config.decoding, algorithm=config.algorithm, shows_progress=True, skips_unreadable=True
        ),
        metrics=config.metrics,
    )


def _score_other(config: ScoreConfig, model: str, utterances: Sequence[Utterance]) -> OtherScore:
    variant = config.against_variant or config.variant
    result = _score(config, model, variant, utterances)
    return OtherScore(name=_name(model, variant), decoding=result.decoding, hypotheses=result.hypotheses)


def _report(
    config: ScoreConfig, scored: Sequence[ScoredUtterance], *, terms: Sequence[str] | None, columns: Columns
) -> ScoreReport:
    given = find_rare_words(scored, _token_counter(config)) if terms is None else terms
    return ScoreReport(
        groups=break_down(scored, normalizer=config.normalizer, columns=columns),
        formatting=measure_formatting(scored),
        loops=find_loops(scored),
        invented=count_invented(scored, columns),
        substitutions=count_substitutions(scored),
        terms=recall_terms(scored, given, normalizer=config.normalizer, spelling=_spelling(config)),
        has_given_terms=terms is not None,
    )


def _judge(
    config: ScoreConfig, scored: Sequence[ScoredUtterance], result: RecognizerScore, other: OtherScore
) -> Verdict:
    if other.decoding != result.decoding:
        how = (result.decoding, other.decoding or "in an unknown way")
        logger.warning("the verdict is on decoding, too: one was decoded as %s, the other as %s", *how)
    name = _name(config.model, config.variant)
    return judge(scored, other, model=name, normalizer=config.normalizer, spelling=_spelling(config))


def _name(model: str, variant: str) -> str:
    return f"{model} ({variant})"


def _spelling(config: ScoreConfig) -> dict[str, str]:
    return read_spelling(root_folder(config.model, config.variant))


def _token_counter(config: ScoreConfig) -> Callable[[str], int]:
    """Return the function that counts the tokens of a text by the model's tokenizer."""
    tokenizer = read_tokenizer(root_folder(config.model, config.variant))
    return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)


def _read_terms(path: Path) -> list[str]:
    """Read a term from each line that is not empty.

    Raises:
        ConfigError: the file is missing, empty, or not UTF-8.
    """
    try:
        terms = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"terms {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"terms {path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if not terms:
        raise ConfigError(f"terms {path}: has no term; write one on each line")
    return terms
