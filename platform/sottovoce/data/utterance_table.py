"""Utterances and examples as columns: a million of them take 0.2 GB, and reach another process without being copied.

A row becomes an ``Utterance`` when it is read. What is asked of all rows at once is computed on the columns.

Shapes: N utterances, E examples.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sottovoce.schema import Example, Split, Utterance

Rows: TypeAlias = NDArray[np.int32]
"""Indices of rows; half the memory of Python's or numpy's own integers."""

_TEXT: Final = pa.large_string()
_NAME: Final = pa.dictionary(pa.int32(), pa.string())
SCHEMA: Final = pa.schema(
    [
        ("id", _TEXT),
        ("audio", _TEXT),
        ("start_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("text", _TEXT),
        ("language", _NAME),
        ("task", _NAME),
        ("speaker", _NAME),
        ("recording", _NAME),
        ("corpus", _NAME),
        ("split", _NAME),
    ]
)
"""The fields of an ``Utterance``, in its order; fields with few values are dictionaries. After them comes a dictionary
for each name that occurs in the utterances' ``columns``, called ``columns.NAME``."""

FURTHER: Final = "columns."
_NAMES: Final = tuple(SCHEMA.names)
_ROWS_AT_ONCE = 4_096  # converted to objects together while a table is iterated
_SURELY_SPOKEN = r"[!-~\p{L}\p{N}]"  # most texts match; of the others, Python says whether they are blank


class UtteranceTable(Sequence[Utterance]):
    """A sequence of utterances: some rows of shared columns, in any order."""

    def __init__(self, batch: pa.RecordBatch, rows: Rows | None = None) -> None:
        """Wrap columns.

        Args:
            batch: columns of ``SCHEMA``, and further ones.
            rows: (N,) indices of the rows; None for all.
        """
        self.batch = batch
        self.rows: Rows = np.arange(batch.num_rows, dtype=np.int32) if rows is None else rows

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> "UtteranceTable":
        """Return the table of a sequence, which may be one already."""
        return utterances if isinstance(utterances, UtteranceTable) else cls(build_batch(utterances))

    @classmethod
    def join(cls, tables: Sequence["UtteranceTable"]) -> "UtteranceTable":
        """Join tables one after the other; those of the same columns are not copied."""
        batches = list({id(table.batch): table.batch for table in tables}.values())
        if len(batches) == 1:
            return cls(batches[0], np.concatenate([table.rows for table in tables]))
        first_rows = np.cumsum([0, *(batch.num_rows for batch in batches)])
        offsets = {id(batch): np.int32(first) for batch, first in zip(batches, first_rows, strict=False)}
        rows = [table.rows + offsets[id(table.batch)] for table in tables]
        return cls(combine_batches(batches), np.concatenate([np.zeros(0, np.int32), *rows]))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> "UtteranceTable": ...

    def __getitem__(self, index: int | slice) -> "Utterance | UtteranceTable":
        if isinstance(index, slice):
            return UtteranceTable(self.batch, self.rows[index])
        return read_utterance(self.batch, int(self.rows[index]))

    def __iter__(self) -> Iterator[Utterance]:
        for first in range(0, len(self.rows), _ROWS_AT_ONCE):
            for values in self.batch.take(pa.array(self.rows[first : first + _ROWS_AT_ONCE])).to_pylist():
                yield _to_utterance(values)

    def column(self, name: str) -> pa.Array:
        """Return one field of all rows, (N,)."""
        column = self.batch.column(name)
        is_whole = len(self.rows) == len(column) and np.array_equal(self.rows, np.arange(len(column), dtype=np.int32))
        return column if is_whole else column.take(pa.array(self.rows))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a field of numbers, ``start_s`` or ``duration_s``, of all rows, (N,)."""
        values: NDArray[np.float64] = self.batch.column(name).to_numpy()[self.rows]
        return values

    def codes(self, *names: str) -> NDArray[np.int64]:
        """Return numbers (N,) that are equal where all the named fields are; each has few values."""
        codes = np.zeros(len(self.rows), np.int64)
        for name in names:
            column = self.batch.column(name)
            codes = codes * (len(column.dictionary) + 1) + _indices(column)[self.rows] + 1
        return codes

    def has_value(self, name: str) -> NDArray[np.bool_]:
        """Whether a field with few values is set, (N,)."""
        found: NDArray[np.bool_] = _indices(self.batch.column(name))[self.rows] >= 0
        return found

    def count_values(self, name: str) -> int:
        """Return how many values a field with few values has in these rows."""
        return len(np.unique(_indices(self.batch.column(name))[self.rows][self.has_value(name)]))

    def has_speech(self) -> NDArray[np.bool_]:
        """Whether the text is more than whitespace, (N,)."""
        spoken = np.zeros(len(self.rows), np.bool_)
        for first in range(0, len(self.rows), _ROWS_AT_ONCE):
            texts = self.batch.column("text").take(pa.array(self.rows[first : first + _ROWS_AT_ONCE]))
            some = pc.match_substring_regex(texts, _SURELY_SPOKEN).to_numpy(zero_copy_only=False)
            spoken[first : first + len(some)] = some
            for index in np.flatnonzero(~some).tolist():
                spoken[first + index] = bool(texts[index].as_py().strip())
        return spoken

    def is_of_split(self, split: Split) -> NDArray[np.bool_]:
        """Whether an utterance is of a split, (N,)."""
        dictionary = self.batch.column("split").dictionary.to_pylist()
        found: NDArray[np.bool_] = _indices(self.batch.column("split"))[self.rows] == (
            dictionary.index(split) if split in dictionary else len(dictionary)
        )
        return found

    def of_split(self, split: Split) -> "UtteranceTable":
        """Return the utterances of one split, of the same columns."""
        return UtteranceTable(self.batch, self.rows[self.is_of_split(split)])

    def kinds(self) -> "UtteranceTable":
        """Return one utterance of each language and task, with speech and without where there are both."""
        codes = 2 * self.codes("language", "task") + self.has_speech()
        _, firsts = np.unique(codes, return_index=True)
        return UtteranceTable(self.batch, self.rows[np.sort(firsts)])


class ExampleTable(Sequence[Example]):
    """A sequence of examples: which utterances are joined, and which text comes before each example."""

    def __init__(self, utterances: UtteranceTable, first: Rows, previous: Rows) -> None:
        """Group utterances.

        Args:
            utterances: those of all examples, example after example.
            first: (E + 1,) index of each example's first utterance, and the number of utterances.
            previous: (E,) row of the columns whose text comes before the example; -1 for none.
        """
        self.utterances = utterances
        self.first = first
        self.previous = previous

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "ExampleTable":
        """Return the table of a sequence, which may be one already."""
        if isinstance(examples, ExampleTable):
            return examples
        utterances = [one for example in examples for one in example.utterances]
        texts = [(index, one.previous_text) for index, one in enumerate(examples) if one.previous_text is not None]
        before = [examples[index].utterances[0].model_copy(update={"text": text}) for index, text in texts]
        previous = np.full(len(examples), -1, np.int32)
        previous[[index for index, _ in texts]] = len(utterances) + np.arange(len(texts))
        table = UtteranceTable(build_batch([*utterances, *before]), np.arange(len(utterances), dtype=np.int32))
        return cls(table, to_offsets([len(example.utterances) for example in examples]), previous)

    @classmethod
    def join(cls, tables: Sequence["ExampleTable"]) -> "ExampleTable":
        """Join tables one after the other."""
        utterances = UtteranceTable.join([table.utterances for table in tables])
        before = [UtteranceTable(table.utterances.batch, table.previous[table.previous >= 0]) for table in tables]
        previous = np.concatenate([table.previous for table in tables])
        joined = UtteranceTable.join([*(table.utterances for table in tables), *before])
        previous[previous >= 0] = joined.rows[len(utterances) :]
        return cls(
            UtteranceTable(joined.batch, joined.rows[: len(utterances)]),
            to_offsets(np.concatenate([np.diff(table.first) for table in tables])),
            previous,
        )

    def __len__(self) -> int:
        return len(self.previous)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> "list[Example]": ...

    def __getitem__(self, index: int | slice) -> "Example | list[Example]":
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        batch, before = self.utterances.batch, int(self.previous[index])
        rows = self.utterances.rows[self.first[index] : self.first[index + 1]].tolist()
        return Example(
            utterances=tuple(read_utterance(batch, row) for row in rows),
            previous_text=None if before < 0 else batch.column("text")[before].as_py(),
        )

    @property
    def durations_s(self) -> NDArray[np.float64]:
        """(E,) seconds of each example's utterances together, added as ``Example.duration_s`` adds them."""
        seconds = self.utterances.numbers("duration_s")
        totals = seconds[self.first[:-1]].copy()
        for index in np.flatnonzero(np.diff(self.first) > 1).tolist():
            totals[index] = sum(seconds[self.first[index] : self.first[index + 1]].tolist())
        return totals


def build_batch(utterances: Sequence[Utterance]) -> pa.RecordBatch:
    """Build the columns of utterances."""
    further = dict.fromkeys(name for one in utterances for name in one.columns)
    values: dict[str, list[object]] = {name: [getattr(one, name) for one in utterances] for name in _NAMES}
    values |= {FURTHER + name: [one.columns.get(name) for one in utterances] for name in further}
    return combine_columns({name: pa.chunked_array([_encode(name, column)]) for name, column in values.items()})


def combine_batches(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Join columns of ``SCHEMA`` and further ones, one after the other."""
    tables = [SCHEMA.empty_table(), *(pa.Table.from_batches([batch]) for batch in batches)]
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    return combine_columns({name: table.column(name) for name in table.column_names})


def combine_columns(columns: dict[str, pa.ChunkedArray]) -> pa.RecordBatch:
    """Copy the chunks of each column into one.

    Args:
        columns: of the types of ``SCHEMA``, and further ones, or plain strings in place of dictionaries. They are taken
            out one by one, so that no more than one is in memory twice.
    """
    further = [(name, _NAME) for name in columns if name.startswith(FURTHER)]
    schema = pa.schema([*SCHEMA, *further])
    combined: dict[str, pa.Array] = {}
    while columns:
        name, column = columns.popitem()
        combined[name] = _to_type(column, name)
        del column
    pa.default_memory_pool().release_unused()
    return pa.RecordBatch.from_arrays([combined[name] for name in schema.names], schema=schema)


def read_utterance(batch: pa.RecordBatch, row: int) -> Utterance:
    """Convert one row of the columns."""
    return _to_utterance(
        {name: column[row].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    )


def _to_utterance(values: Mapping[str, Any]) -> Utterance:
    if len(values) == len(_NAMES):
        return Utterance(**values)
    further = {name: value for name, value in values.items() if name.startswith(FURTHER) and value is not None}
    return Utterance(
        **{name: values[name] for name in _NAMES},
        columns={name.removeprefix(FURTHER): value for name, value in further.items()},
    )


def _encode(name: str, values: list[object]) -> pa.Array:
    kind = _type_of(name)
    return pa.array(values, pa.string() if kind == _NAME else kind)


def _type_of(name: str) -> pa.DataType:
    return _NAME if name.startswith(FURTHER) else SCHEMA.field(name).type


def _to_type(column: pa.ChunkedArray, name: str) -> pa.Array:
    """Cast a column to the type that the schema has for it, in one chunk."""
    kind = _type_of(name)
    if kind == _NAME and not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode().unify_dictionaries()
    column = column if column.type == kind else column.cast(kind)
    return pa.concat_arrays(column.chunks or [pa.array([], kind)])


def _indices(column: pa.DictionaryArray) -> NDArray[np.int64]:
    """Return the index of each value in the dictionary, -1 for null."""
    indices: NDArray[np.int64] = column.indices.fill_null(-1).to_numpy().astype(np.int64)
    return indices


def to_offsets(sizes: Sequence[int] | Rows) -> Rows:
    """Return the index at which each of some groups begins, and finally their number of members."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(np.asarray(sizes, np.int32), dtype=np.int32)])
