"""The row every reader gives: one recording and what was said, before any check."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sottovoce.schema import Split, Task

FaultReason: TypeAlias = Literal["invalid_row", "wrong_encoding"]


@dataclass(frozen=True, kw_only=True)
class CorpusRow:
    """One row before any check; ``fault`` says why it cannot be read, if it cannot."""

    id: str
    audio: str
    """Reference of the recording: an absolute path or a URI, or a part of such a file (``shard.tar#bytes=1536-48211``,
    ``train.parquet#row=17``); empty where the row names none."""
    text: str | None = None
    """As written; empty where the corpus says that nothing was said, None where it does not tell."""
    start_s: float = 0.0
    duration_s: float | None = None
    """Seconds from ``start_s`` on; None for the rest of the recording."""
    language: str | None = None
    """Lower-case code without region: ``en`` for a row that says en_US."""
    task: Task | None = None
    speaker: str | None = None
    recording: str | None = None
    """The longer recording this is a piece of, where the corpus knows it."""
    split: Split | None = None
    """As the corpus declares it; None where it does not."""
    fault: str | None = None
    fault_reason: FaultReason = "invalid_row"
    """What kind of ``fault``, as the reject will name it; without meaning where there is none."""
