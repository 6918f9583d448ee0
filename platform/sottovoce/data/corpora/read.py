"""Read any corpus: its layout is recognized, or named."""

import posixpath
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from sottovoce.data.corpora.audio_folder import TABLES, read_audio_folder
from sottovoce.data.corpora.common_voice import SPLIT_TABLES, VALIDATED_TABLE, read_common_voice
from sottovoce.data.corpora.files import CorpusFiles, CorpusLocation, list_files
from sottovoce.data.corpora.jsonl import read_jsonl_manifests
from sottovoce.data.corpora.librispeech import TRANSCRIPT, read_librispeech
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.data.corpora.webdataset import COMPRESSED, read_webdataset
from sottovoce.errors import ManifestError

CorpusLayout: TypeAlias = Literal["audio_folder", "jsonl", "common_voice", "librispeech", "parquet", "webdataset"]
CorpusFormat: TypeAlias = Literal[
    "auto", "audio_folder", "jsonl", "common_voice", "librispeech", "parquet", "webdataset"
]
"""auto: as the files tell; audio_folder: metadata.csv or metadata.jsonl beside the audio; jsonl: one JSON object a
line, with our keys or NeMo's; common_voice: clips/ and tables; librispeech: trees of .trans.txt; parquet: files with
the audio in them, as on the Hub; webdataset: uncompressed .tar shards."""

# What tells each layout, by the ends of file names; a table of metadata is also a .jsonl, so the order counts.
_SIGNS: Final[Mapping[CorpusLayout, tuple[str, ...]]] = {
    "audio_folder": TABLES,
    "common_voice": (*SPLIT_TABLES, VALIDATED_TABLE),
    "librispeech": (TRANSCRIPT,),
    "parquet": (".parquet",),
    "webdataset": (".tar", *COMPRESSED),
    "jsonl": (".jsonl",),
}
# A file that was named itself may bear any name.
_SIGNS_OF_FILE: Final[Mapping[CorpusLayout, tuple[str, ...]]] = {
    **_SIGNS,
    "audio_folder": (".csv", "metadata.jsonl"),
    "common_voice": (".tsv",),
    "jsonl": (".jsonl", ".json"),
}

_READERS: Final[Mapping[CorpusLayout, Callable[[CorpusFiles], list[CorpusRow]]]] = {
    "audio_folder": read_audio_folder,
    "common_voice": read_common_voice,
    "librispeech": read_librispeech,
    "webdataset": read_webdataset,
    "jsonl": read_jsonl_manifests,
}


def read_corpus(location: CorpusLocation, format: CorpusFormat = "auto") -> list[CorpusRow]:  # noqa: A002  # the setting's name
    """Read all rows of a corpus; a row that cannot be read becomes one with a ``fault``.

    Args:
        location: a folder or a file, local or behind any protocol fsspec knows.
        format: its layout.

    Returns:
        Rows in the order of the corpus, the same on every call; ids may occur twice.

    Raises:
        ManifestError: nothing there, a layout that is not clear, metadata that cannot be read, or Parquet, which
            ``stream_parquet`` reads.
    """
    files = list_files(location)
    layout = detect_format(files, format)
    if layout not in _READERS:
        raise ManifestError(files.location, "holds its audio in Parquet; stream it with stream_parquet")
    return _READERS[layout](files)


def detect_format(location: CorpusLocation, format: CorpusFormat = "auto") -> CorpusLayout:  # noqa: A002
    """Tell the layout of a corpus.

    Raises:
        ManifestError: nothing there, no layout we know, or files of several.
    """
    if format != "auto":
        return format
    files = list_files(location)
    signs = _SIGNS_OF_FILE if files.is_single else _SIGNS
    found = {layout for name in files.names if (layout := _layout_of(name, signs)) is not None}
    if "audio_folder" in found:
        found.discard("jsonl")  # a manifest made of an audio folder often lies in it
    if len(found) == 1:
        return found.pop()
    known = "; ".join(f"{layout} ({', '.join(ends)})" for layout, ends in signs.items())
    if not found:
        raise ManifestError(files.location, f"holds nothing that tells its format; looked for {known}")
    message = f"could be {' or '.join(sorted(found))}; say which with format, or name one folder or file of it"
    raise ManifestError(files.location, message)


def _layout_of(name: str, signs: Mapping[CorpusLayout, tuple[str, ...]]) -> CorpusLayout | None:
    base = posixpath.basename(name).lower()
    exact = (layout for layout, ends in signs.items() if any(base == end for end in ends))
    ending = (layout for layout, ends in signs.items() if any(end[0] == "." and base.endswith(end) for end in ends))
    return next(exact, None) or next(ending, None)
