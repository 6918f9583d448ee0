"""Prepare a corpus: every row ends up in the manifest or in the rejects, and none is lost."""

import dataclasses
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from pydantic import Field, field_validator

from sottovoce.audio.silence import SILENCE_DBFS
from sottovoce.config import Config
from sottovoce.data.check import Checked, CheckRules, EmptyText
from sottovoce.data.check_corpus import check_corpus, require_same_rows
from sottovoce.data.corpora.columns import FIELDS
from sottovoce.data.corpora.read import CorpusFormat, describe_formats, table_suffixes
from sottovoce.data.label_limits import count_label_tokens, load_languages
from sottovoce.data.manifest import write_manifest, write_rejects, write_warnings
from sottovoce.data.recording_store import store_recordings
from sottovoce.errors import LanguageError, TooManyRejectsError
from sottovoce.schema import MAX_CONTEXT_S, MAX_DURATION_S, Reject, RowWarning, Split, Task, Utterance
from sottovoce.text.clean import CleaningRule
from sottovoce.text.languages import find_language

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A corpus after every row was checked; num_rows is the number of utterances plus rejects."""

    corpus: str
    """Name of the corpus, or of the folder or URI it was read from; headline of the report."""
    utterances: tuple[Utterance, ...]
    """The accepted rows, each with its split; ``audio`` is as ``read_audio`` accepts it."""
    rejects: tuple[Reject, ...]
    """The rejected rows, with reasons."""
    warnings: tuple[RowWarning, ...]
    """Unusual properties of accepted rows."""
    digests: Mapping[str, str]
    """SHA-256 in hex of each utterance's int16 PCM, by id: equal audio has equal digests."""
    num_rows: int
    """Number of rows of the corpus."""
    seconds: float
    """Wall time of the preparation."""


def assign_splits(
    utterances: Sequence[Utterance],
    *,
    declared: Mapping[str, Split],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    max_duration_s: float = MAX_CONTEXT_S,
) -> list[Utterance]:
    """Assign a split to every utterance; the same input and seed give the same result on any machine.

    Splits that the corpus declares are kept, with one exception: if it declares training rows and no validation rows,
    validation is taken from training. All utterances of a speaker go to one split. If there are too few speakers to
    fill every split, utterances are split individually, and a warning says so. A recording too long for training goes
    to test with its speaker, and counts towards the fraction.

    Args:
        utterances: in any order, with unique ids.
        declared: split by id, for the utterances whose split the corpus declares.
        validation_fraction: of the utterances without a declared split.
        test_fraction: of the utterances without a declared split; ignored if the corpus declares any split.
        seed: another seed gives another split.
        max_duration_s: longer utterances without a declared split go to test.

    Returns:
        The utterances in the given order.
    """
    present = set(declared.values())
    pool = [utterance for utterance in utterances if utterance.id not in declared]
    if present and "validation" not in present:
        pool += [utterance for utterance in utterances if declared.get(utterance.id) == "train"]
    fractions: dict[Split, float] = {"validation": validation_fraction, "test": test_fraction}
    if present:  # a corpus with splits of its own decides what is test
        fractions["test"] = 0.0
    if "validation" in present:
        fractions["validation"] = 0.0
    long = {one.id for one in pool if one.id not in declared and one.duration_s > max_duration_s}
    wanted = {split: fraction for split, fraction in fractions.items() if fraction > 0.0}
    divided = _divide(pool, wanted, seed=seed, only_test=long)
    moved = {row_id: split for row_id, split in divided.items() if split == "validation" or row_id not in declared}
    chosen: Mapping[str, Split] = {**declared, **moved}
    return [utterance.model_copy(update={"split": chosen.get(utterance.id, "train")}) for utterance in utterances]


def _divide(
    pool: Sequence[Utterance], fractions: Mapping[Split, float], *, seed: int, only_test: Set[str]
) -> dict[str, Split]:
    """Choose the utterances that leave training; return their splits by id.

    Args:
        pool: the utterances to divide.
        fractions: of the pool, by split; each above 0.
        seed: another seed gives another split.
        only_test: ids that must be in test, with all others of their speakers.
    """
    keys = {utterance.id: _speaker_key(utterance) for utterance in pool}
    left = set(keys.values()) - {keys[row_id] for row_id in only_test}
    unfilled = [split for split in fractions if split != "test" or not only_test]
    if len(left) <= len(unfilled) < len(pool) - len(only_test):
        logger.warning(
            "%d speakers cannot fill %d splits: splitting by utterance, so speakers occur in several splits",
            len(set(keys.values())),
            len(fractions) + 1,
        )
        keys = {utterance.id: utterance.id for utterance in pool}
    sizes = Counter(keys.values())
    order = sorted(sizes, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    split_of_key: dict[str, Split] = {keys[row_id]: "test" for row_id in only_test}
    for split, fraction in fractions.items():
        filled = sum(sizes[key] for key, chosen in split_of_key.items() if chosen == split)
        for key in [key for key in order if key not in split_of_key]:
            leaves_training = len(split_of_key) + 1 < len(order)
            # A group is added if at least half of it fits below the target; every split gets at least one.
            if leaves_training and (filled == 0 or filled + sizes[key] / 2 <= fraction * len(pool)):
                split_of_key[key] = split
                filled += sizes[key]
    return {row_id: split_of_key[key] for row_id, key in keys.items() if key in split_of_key}


def _speaker_key(utterance: Utterance) -> str:
    """Return the group that stays together: the speaker, or the utterance itself if the speaker is unknown."""
    return f"utterance {utterance.id}" if utterance.speaker is None else f"speaker {utterance.speaker}"


class PrepareConfig(Config):
    """How a corpus is read, which rows are accepted, and how it is split."""

    format: CorpusFormat = Field(default="auto", description=describe_formats())
    name: str | None = None
    """Name of this corpus in scores and records. Default: the last part of its location."""
    tokenizer: str = "micro"
    """Folder or Hub id of the tokenizer that measures labels, at most 448 tokens, and defines the languages; micro has
    Whisper's multilingual tokenizer."""
    language: str = "en"
    """Language of rows that declare none, as an ISO 639-1 code."""
    task: Task = "transcribe"
    """Task of rows that declare none; translate if the texts are English and the speech is not."""
    cleaning: tuple[CleaningRule, ...] = ("unicode_nfc", "whitespace")
    """Cleaning rules for every transcript, applied in this order."""
    empty_text: EmptyText = "reject"
    """Whether rows with an empty text are rejected, or accepted as recordings without speech, which may be silent."""
    min_duration_s: float = Field(default=0.1, gt=0.0)
    """Shorter recordings are rejected."""
    max_duration_s: float = Field(default=MAX_CONTEXT_S, gt=0.0, le=MAX_CONTEXT_S)
    """Longer recordings are rejected for training and validation; Whisper reads at most 30 s at once."""
    max_test_duration_s: float = Field(default=MAX_CONTEXT_S, gt=0.0, le=MAX_DURATION_S)
    """Longer recordings are rejected for the test split. Above max_duration_s, a long recording that declares no split
    goes to test, with all others of its speaker."""
    keep_columns: tuple[str, ...] = ()
    """Further columns of the corpus to write into the manifest, such as condition, microphone or accent, which scores
    are then broken down by."""
    silence_dbfs: float = Field(default=SILENCE_DBFS, le=0.0)
    """Recordings whose peak stays below this are rejected as silent."""
    validation_fraction: float = Field(default=0.1, ge=0.0, lt=0.5)
    """Fraction of the utterances for validation, unless the corpus declares a validation split."""
    test_fraction: float = Field(default=0.1, ge=0.0, lt=0.5)
    """Fraction of the utterances for the test split, unless the corpus declares splits."""
    seed: int = 0
    """Another seed gives another split."""
    store_recordings: bool = True
    """Copy recordings that are rows of Parquet files into tar files beside the manifest, so that training reads each by
    itself. Otherwise it reads a whole row group, some 15 MB, for each utterance."""
    max_reject_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """The job fails, after writing all files, if a larger fraction of the rows is rejected."""

    @field_validator("keep_columns")
    @classmethod
    def _require_further(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        own = [name for name in names if name in FIELDS]
        if own:
            message = f"{', '.join(own)} is a field of every utterance, and scores find it there"
            raise ValueError(f"{message}; leave it out, or rename the column if it means something else")
        return names


def prepare_corpus(corpus: str | Path, output: Path, config: PrepareConfig) -> PreparedData:
    """Check every row of a corpus on the Ray cluster and write the result.

    ``manifest.jsonl`` receives the utterances, ``rejects.jsonl`` the rows that cannot be used, and ``warnings.jsonl``
    unusual properties of utterances. These three depend on the corpus and the settings alone.

    Args:
        corpus: path or URI, see ``read_corpus``; on a cluster, one that every node can read.
        output: folder that receives the files.
        config: limits and fractions of the splits.

    Raises:
        ManifestError: the corpus cannot be read, or has no column of ``keep_columns``.
        CheckpointError: the folder holds no tokenizer.
        LanguageError: the default language has no token.
        RowsLostError: a row was lost or doubled; nothing is written.
    """
    started = time.monotonic()
    rules = build_rules(config, name=config.name or name_of(corpus))
    checked = check_corpus(corpus, config.format, rules, keep=config.keep_columns)
    data = divide(checked, config, name=rules.corpus, started=started)
    if config.store_recordings:
        stored = store_recordings(data.utterances, output / "recordings")
        data = dataclasses.replace(data, utterances=tuple(stored))
    _write(data, output)
    _log_summary(data)
    return data


def check_rejects(data: PreparedData, output: Path, config: PrepareConfig) -> None:
    """Fail a preparation that rejected too many rows; call it after its files and its report are written.

    Raises:
        TooManyRejectsError: a larger fraction of the rows than ``max_reject_fraction`` was rejected.
    """
    if len(data.rejects) > config.max_reject_fraction * data.num_rows:
        path = output / "rejects.jsonl"
        raise TooManyRejectsError(path, len(data.rejects), data.num_rows, config.max_reject_fraction)


def build_rules(config: PrepareConfig, *, name: str) -> CheckRules:
    """Build the rules that every row is checked against; read the tokenizer, so that a wrong one fails at once.

    Raises:
        CheckpointError: the folder holds no tokenizer.
        LanguageError: the default language has no token.
    """
    languages = load_languages(config.tokenizer)
    language = find_language(config.language, languages)
    if language is None:
        raise LanguageError(config.language)
    return CheckRules(
        corpus=name,
        language=language,
        languages=languages,
        task=config.task,
        cleaning=config.cleaning,
        empty_text=config.empty_text,
        min_duration_s=config.min_duration_s,
        max_duration_s=config.max_duration_s,
        max_test_duration_s=config.max_test_duration_s,
        silence_dbfs=config.silence_dbfs,
        count_tokens=partial(count_label_tokens, tokenizer=config.tokenizer),
    )


def name_of(corpus: str | Path) -> str:
    """Return the last part of a path or URI, without the suffix of a single-file corpus."""
    text = str(corpus)
    path = PurePosixPath(text.split("://", 1)[1]) if "://" in text else Path(text).resolve()
    return path.stem if path.suffix in table_suffixes() else path.name


def divide(checked: Sequence[Checked], config: PrepareConfig, *, name: str, started: float) -> PreparedData:
    """Separate utterances from rejects, in the order of the corpus, and assign splits to the utterances.

    Raises:
        RowsLostError: an utterance was lost.
    """
    kept = [each for each in checked if isinstance(each.outcome, Utterance)]
    utterances = assign_splits(
        [each.outcome for each in kept if isinstance(each.outcome, Utterance)],
        declared={each.outcome.id: each.split for each in kept if each.split is not None},
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        max_duration_s=config.max_duration_s,
    )
    rejects = [each.outcome for each in checked if isinstance(each.outcome, Reject)]
    ids_out = [utterance.id for utterance in utterances] + [reject.id for reject in rejects]
    require_same_rows("split", (each.outcome.id for each in checked), ids_out)
    return PreparedData(
        corpus=name,
        utterances=tuple(utterances),
        rejects=tuple(rejects),
        warnings=tuple(warning for each in kept for warning in each.warnings),
        digests={each.outcome.id: each.digest for each in kept if each.digest is not None},
        num_rows=len(checked),
        seconds=time.monotonic() - started,
    )


def _write(data: PreparedData, output: Path) -> None:
    """Write the files, the manifest last: if it exists, the others do."""
    write_rejects(data.rejects, output / "rejects.jsonl")
    write_warnings(data.warnings, output / "warnings.jsonl")
    write_manifest(data.utterances, output / "manifest.jsonl")


def _log_summary(data: PreparedData) -> None:
    logger.info(
        "prepared %d utterances (%.2f h; %s), %d rejects (%s) and %d warnings (%s) in %.1f s",
        len(data.utterances),
        sum(utterance.duration_s for utterance in data.utterances) / 3600,
        _count(Counter(utterance.split for utterance in data.utterances)),
        len(data.rejects),
        _count(Counter(reject.reason for reject in data.rejects)),
        len(data.warnings),
        _count(Counter(warning.kind for warning in data.warnings)),
        data.seconds,
    )


def _count(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counter.items())) or "none"
