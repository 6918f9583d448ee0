"""Read audio folders, the layout of Hugging Face's ``audiofolder``.

``metadata.csv`` or ``metadata.jsonl`` is at the root or in folders such as ``train/`` and ``test/``. Its ``file_name``
is relative to the folder of the metadata.
"""

import posixpath
from collections.abc import Iterator

from sottovoce.data.corpora.fields import AUDIO_KEYS, fault_row, parse_record, split_of_folder, split_segments
from sottovoce.data.corpora.files import CorpusFiles
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.data.corpora.tables import read_csv, read_jsonl
from sottovoce.errors import ManifestError
from sottovoce.schema import Split

TABLES = ("metadata.csv", "metadata.jsonl")


def read_audio_folder(files: CorpusFiles) -> Iterator[CorpusRow]:
    """Read the metadata of every folder; the name of a folder may declare the split.

    Raises:
        ManifestError: no metadata, two files of it in one folder, or a table without a column for the audio.
    """
    tables = files.names if files.is_single else [name for name in files.names if posixpath.basename(name) in TABLES]
    if not tables:
        message = "holds neither metadata.csv nor metadata.jsonl; write one with file_name and text"
        raise ManifestError(files.location, message)
    folders = [posixpath.dirname(table) for table in tables]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ManifestError(files.shown(folder), "holds both metadata.csv and metadata.jsonl; keep one")
    splits = [split_of_folder(folder) for folder in folders]
    return (row for table, split in zip(tables, splits, strict=True) for row in read_table(files, table, split=split))


def read_table(files: CorpusFiles, name: str, *, split: Split | None) -> Iterator[CorpusRow]:
    """Read one table of metadata; ``split`` is the split of rows that declare none.

    Raises:
        ManifestError: it cannot be read, is not CSV, or has no column for the audio.
    """
    data, is_csv = files.read(name), name.lower().endswith(".csv")
    records = read_csv(data, source=files.shown(name), one_of=AUDIO_KEYS) if is_csv else read_jsonl(data)
    for number, record in records:
        location = f"{name}:{number}"
        for part in [record] if isinstance(record, ValueError) else split_segments(record):
            if isinstance(part, ValueError):
                yield fault_row(part, location=location, row_id=location)
            else:
                yield parse_record(part, location=location, folder=posixpath.dirname(name), files=files, split=split)
