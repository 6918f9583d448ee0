"""Read JSONL manifests: one JSON object per line, with our keys or NeMo's.

Ours: ``audio``, ``text`` and, if known, ``id``, ``start_s``, ``duration_s`` or ``end_s``, ``language``, ``task``,
``speaker``, ``recording``, ``split``. NeMo's: ``audio_filepath``, ``offset``, ``duration``, ``text``, ``lang``,
``source_lang``, ``target_lang``, ``taskname``. Audio paths are relative to the manifest's folder.
"""

from collections.abc import Iterator

from sottovoce.data.corpora.audio_folder import read_table
from sottovoce.data.corpora.fields import split_of_name
from sottovoce.data.corpora.files import CorpusFiles
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError


def read_jsonl_manifests(files: CorpusFiles) -> Iterator[CorpusRow]:
    """Read one file, or every ``.jsonl`` of a folder, whose names may declare the split (``dev.jsonl``).

    Raises:
        ManifestError: a folder without such a file, or one that cannot be read.
    """
    names = files.names if files.is_single else tuple(files.ending(".jsonl"))
    if not names:
        raise ManifestError(files.location, "holds no .jsonl file; give the manifest's own path")
    return (
        row for name in names for row in read_table(files, name, split=None if files.is_single else split_of_name(name))
    )
