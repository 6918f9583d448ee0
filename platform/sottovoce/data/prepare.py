"""Prepare a corpus: every row ends in the manifest or among the rejects, and none is lost."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypedDict

import ray
from pydantic import Field, TypeAdapter

from sottovoce.audio.silence import SILENCE_DBFS
from sottovoce.config import Config
from sottovoce.data.check import check_row, reject_duplicate
from sottovoce.data.corpus import CorpusRow, read_corpus
from sottovoce.data.manifest import write_manifest, write_rejects
from sottovoce.data.split import assign_splits
from sottovoce.errors import CheckpointError, LabelTooLongError, TooManyRejectsError
from sottovoce.schema import MAX_CONTEXT_S, MAX_LABEL_TOKENS, Reject, Utterance

logger = logging.getLogger(__name__)

_ROW = TypeAdapter(CorpusRow)
_OUTCOME: TypeAdapter[Utterance | Reject] = TypeAdapter(Utterance | Reject)
_NUM_TOKENS_AROUND_TEXT = 6  # prefix of four, the space before the text, the end token
_ROWS_PER_TASK = 64  # decoding them takes about a second: long against a task's overhead, short against a retry


class PrepareConfig(Config):
    """What is kept of a corpus and how it is split."""

    tokenizer: str = "micro"
    """Folder or Hub id whose tokenizer measures labels against 448 tokens; micro has Whisper's own multilingual one."""
    language: str = "en"
    """Language of rows that name none, as an ISO 639-1 code."""
    min_duration_s: float = Field(default=0.1, gt=0.0)
    """Shorter recordings are rejected."""
    max_duration_s: float = Field(default=MAX_CONTEXT_S, gt=0.0, le=MAX_CONTEXT_S)
    """Longer recordings are rejected; Whisper reads at most 30 s at once."""
    silence_dbfs: float = Field(default=SILENCE_DBFS, le=0.0)
    """Recordings whose peak stays below this are rejected as silent."""
    validation_fraction: float = Field(default=0.1, ge=0.0, lt=0.5)
    """Part of the utterances for validation, unless the corpus declares a validation split."""
    test_fraction: float = Field(default=0.1, ge=0.0, lt=0.5)
    """Part of the utterances for the test, unless the corpus declares splits."""
    seed: int = 0
    """Another seed gives another split."""
    max_reject_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """The job fails, after writing both files, when a larger part of the rows is rejected."""


class CheckedRow(TypedDict):
    """A row of the Dataset that checks a corpus."""

    index: int
    """Place in the corpus."""
    record: str
    """JSON of a CorpusRow before the check, of an Utterance or a Reject after it."""


def prepare_corpus(corpus: Path, output: Path, config: PrepareConfig) -> None:
    """Check every row of a corpus on the Ray cluster and write ``manifest.jsonl`` and ``rejects.jsonl``.

    Args:
        corpus: see ``read_corpus``; on a cluster, a path every node can read.
        output: folder that receives both files.
        config: limits and split.

    Raises:
        ManifestError: the corpus cannot be read.
        CheckpointError: no tokenizer in the folder given.
        TooManyRejectsError: more rejects than allowed; both files are written by then.
    """
    started = time.monotonic()
    rows = read_corpus(corpus)
    unique, duplicates = split_duplicates(rows)
    outcomes = check_rows(unique, config)
    utterances = [outcome for outcome in outcomes if isinstance(outcome, Utterance)]
    rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)] + duplicates
    ids_out = [utterance.id for utterance in utterances] + [reject.id for reject in rejects]
    assert Counter(row.id for row in rows) == Counter(ids_out), "rows were lost"
    utterances = assign_splits(
        utterances,
        declared={row.id: row.split for row in unique if row.split is not None},
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
    )
    write_manifest(utterances, output / "manifest.jsonl")
    write_rejects(rejects, output / "rejects.jsonl")
    _log_summary(utterances, rejects, seconds=time.monotonic() - started)
    if len(rejects) > config.max_reject_fraction * len(rows):
        raise TooManyRejectsError(output / "rejects.jsonl", len(rejects), len(rows), config.max_reject_fraction)


def split_duplicates(rows: Sequence[CorpusRow]) -> tuple[list[CorpusRow], list[Reject]]:
    """Keep the first row of each id, and reject the others."""
    unique: dict[str, CorpusRow] = {}
    duplicates = []
    for row in rows:
        if unique.setdefault(row.id, row) is not row:
            duplicates.append(reject_duplicate(row))
    return list(unique.values()), duplicates


def check_rows(rows: Sequence[CorpusRow], config: PrepareConfig) -> list[Utterance | Reject]:
    """Check rows in parallel with Ray Data; the outcomes come in the order of the rows."""
    if not rows:
        return []
    check = build_check(config)
    items = [{"index": i, "record": _ROW.dump_json(row).decode()} for i, row in enumerate(rows)]
    num_tasks = -(-len(items) // _ROWS_PER_TASK)
    checked = ray.data.from_items(items, override_num_blocks=num_tasks).map(check)  # type: ignore[arg-type]  # Ray's stubs know no TypedDict
    records: dict[int, str] = {row["index"]: row["record"] for row in checked.iter_rows()}
    return [_OUTCOME.validate_json(records[i]) for i in range(len(rows))]


def build_check(config: PrepareConfig) -> Callable[[CheckedRow], CheckedRow]:
    """Give the function that Ray Data maps over the rows; it raises on no bad row.

    Raises:
        CheckpointError: no tokenizer in the folder given.
    """
    load_token_counter(config.tokenizer)  # here, so that a wrong one stops the job before it starts
    count_tokens = partial(count_label_tokens, tokenizer=config.tokenizer)
    language, silence_dbfs = config.language, config.silence_dbfs
    min_duration_s, max_duration_s = config.min_duration_s, config.max_duration_s

    def check(row: CheckedRow) -> CheckedRow:
        outcome = check_row(
            _ROW.validate_json(row["record"]),
            language=language,
            min_duration_s=min_duration_s,
            max_duration_s=max_duration_s,
            silence_dbfs=silence_dbfs,
            count_tokens=count_tokens,
        )
        return CheckedRow(index=row["index"], record=outcome.model_dump_json())

    return check


def count_label_tokens(text: str, *, tokenizer: str) -> int:
    """Count a transcript's label, prefix and end token included; at most 448 is an upper bound, above it is exact.

    A token covers at least one byte, so a text of few bytes needs no tokenizer.
    """
    bound = len(text.encode()) + _NUM_TOKENS_AROUND_TEXT
    return bound if bound <= MAX_LABEL_TOKENS else load_token_counter(tokenizer)(text)


@cache
def load_token_counter(source: str) -> Callable[[str], int]:
    """Give the function that measures a transcript's label, prefix and end token included.

    Raises:
        CheckpointError: no tokenizer in the folder.
    """
    # Imported here: every worker imports this module, and only one that meets a long text should wait for torch.
    from transformers import WhisperTokenizerFast

    from sottovoce.model.checkpoint import resolve_folder
    from sottovoce.model.labels import encode_labels

    folder = resolve_folder(source)
    try:
        tokenizer = WhisperTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:  # TypeError: transformers' answer to missing vocabulary files
        raise CheckpointError(folder, "it holds no Whisper tokenizer") from error

    def count_tokens(text: str) -> int:
        try:
            return len(encode_labels(tokenizer, text, language="en"))  # every language has one token
        except LabelTooLongError as error:
            return int(error.args[0])

    return count_tokens


def _log_summary(utterances: Sequence[Utterance], rejects: Sequence[Reject], *, seconds: float) -> None:
    logger.info(
        "prepared %d utterances (%.2f h; %s) and %d rejects (%s) in %.1f s",
        len(utterances),
        sum(utterance.duration_s for utterance in utterances) / 3600,
        _count(Counter(utterance.split for utterance in utterances)),
        len(rejects),
        _count(Counter(reject.reason for reject in rejects)) or "none",
        seconds,
    )


def _count(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counter.items()))
