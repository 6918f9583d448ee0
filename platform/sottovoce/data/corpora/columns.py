"""Keep further columns of a corpus, those that are no field of an utterance: the same for all layouts, as text."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sottovoce.data.corpora.row import CorpusRow, FaultReason
from sottovoce.errors import ManifestError
from sottovoce.schema import NO_COLUMNS, Utterance

FIELDS: Final = frozenset(Utterance.model_fields)
"""Names that no further column bears, since they are an utterance's own."""


def further_columns(record: Mapping[str, object]) -> dict[str, str]:
    """Return what a record says beside the fields of an utterance, as text.

    A missing value is empty text, as in CSV. Lists and objects are left out. What a line of a manifest holds in
    ``columns`` counts like what it holds itself.
    """
    own = record.get("columns")
    values = {**record, **own} if isinstance(own, dict) else record
    return {name: _to_text(value) for name, value in values.items() if _is_further(name, value)}


def keep_columns(row: CorpusRow, keep: Sequence[str]) -> CorpusRow:
    """Return a row with only the named ones of its columns, and of those only the ones with a value.

    A row whose kept text is not UTF-8, or has a NUL character, becomes one with a ``fault``.
    """
    if not row.columns:
        return row
    kept = {name: row.columns[name] for name in keep if row.columns.get(name)}
    for name, value in kept.items():
        if "\0" in value:
            return _fault(row, f"column {name} holds a NUL character", "invalid_row")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # bytes of another encoding, kept as surrogates
            return _fault(row, f"column {name} is not UTF-8; save it as UTF-8", "wrong_encoding")
    return replace(row, columns=kept or NO_COLUMNS)


def keep_columns_of_rows(rows: Iterable[CorpusRow], keep: Sequence[str], *, source: str) -> Iterator[CorpusRow]:
    """Yield all rows as ``keep_columns`` returns them.

    Args:
        rows: of a whole corpus.
        keep: names of columns.
        source: the corpus, for the error.

    Raises:
        ManifestError: after the last row: no row has one of the columns. Rows with a ``fault`` are not asked.
    """
    found: dict[str, None] = {}
    is_readable = False
    for row in rows:
        if keep and row.fault is None:
            is_readable = True
            found.update(dict.fromkeys(row.columns))
        yield keep_columns(row, keep)
    if is_readable:
        require_columns(keep, found, source=source)


def require_columns(keep: Iterable[str], found: Iterable[str], *, source: str | Path) -> None:
    """Check that columns are there.

    Raises:
        ManifestError: one is not; the message names those that are.
    """
    found = tuple(found)
    missing = [name for name in keep if name not in found]
    if missing:
        raise ManifestError(
            source, f"has no column {' or '.join(map(repr, missing))} to keep; there are {', '.join(found) or 'none'}"
        )


def _is_further(name: str, value: object) -> bool:
    return isinstance(name, str) and name not in FIELDS and not isinstance(value, (list, dict))


def _to_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fault(row: CorpusRow, fault: str, reason: FaultReason) -> CorpusRow:
    return CorpusRow(id=row.id, audio=row.audio, split=row.split, fault=fault, fault_reason=reason)
