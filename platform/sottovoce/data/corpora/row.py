"""The row that every reader returns: one recording and its transcript, before any check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sottovoce.schema import NO_COLUMNS, Split, Task

FaultReason: TypeAlias = Literal["invalid_row", "wrong_encoding"]


@dataclass(frozen=True, kw_only=True)
class CorpusRow:
    """One row before any check; ``fault`` says why it cannot be read, or is None."""

    id: str
    audio: str
    """Reference of the recording: an absolute path or a URI, or a part of such a file (``shard.tar#bytes=1536-48211``,
    ``train.parquet#row=17``); empty if the row names none."""
    text: str | None = None
    """As written; empty if the corpus says that nothing was said, None if it has no text."""
    start_s: float = 0.0
    duration_s: float | None = None
    """Seconds from ``start_s``; None for the rest of the recording."""
    language: str | None = None
    """Lower-case code without region: ``en`` for a row that says en_US."""
    task: Task | None = None
    speaker: str | None = None
    recording: str | None = None
    """The longer recording that contains this piece, if the corpus names it."""
    split: Split | None = None
    """The split that the corpus declares; None if it declares none."""
    columns: Mapping[str, str] = field(default_factory=lambda: NO_COLUMNS)
    """Further columns by name: all of them as a layout's reader returns the row, and those that are kept after
    ``keep_columns``."""
    fault: str | None = None
    fault_reason: FaultReason = "invalid_row"
    """The kind of ``fault``, used as the reason of the reject; meaningless without a fault."""
