"""Read any corpus: the table of layouts, and how a corpus's layout is detected.

Everything else reads ``LAYOUTS``: the setting ``prepare.format`` accepts its names and describes them in ``--help``,
detection looks for its signs, and ``read_corpus`` calls its readers. To add a layout, write its reader in a file of
this folder and add an entry here.
"""

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from sottovoce.data.corpora.audio_folder import TABLES, read_audio_folder
from sottovoce.data.corpora.columns import keep_columns_of_rows
from sottovoce.data.corpora.common_voice import SPLIT_TABLES, VALIDATED_TABLE, read_common_voice
from sottovoce.data.corpora.files import CorpusFiles, CorpusLocation, list_files
from sottovoce.data.corpora.jsonl import read_jsonl_manifests
from sottovoce.data.corpora.librispeech import TRANSCRIPT, read_librispeech
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.data.corpora.subtitles import SUBTITLES, read_subtitles
from sottovoce.data.corpora.webdataset import COMPRESSED, read_webdataset
from sottovoce.errors import ManifestError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which authors lay out a corpus."""

    summary: str
    """What the layout consists of, for ``--help``."""
    signs: tuple[str, ...]
    """Files that show the layout in a folder: a suffix with its dot, or a whole file name; in lower case."""
    signs_of_file: tuple[str, ...] = ()
    """The same for a single file that the user named, which may bear any name; ``signs`` where empty."""
    read: Callable[[CorpusFiles], Iterable[CorpusRow]] | None
    """Read all rows, each with all its columns; None for a layout with the audio inside its tables, which
    ``stream_parquet`` reads."""
    often_holds: frozenset[str] = frozenset()
    """Layouts whose signs often lie in a corpus of this one, and do not count there."""


_SUBTITLES = frozenset({"subtitles"})  # whose recordings a table or a shard already lists

LAYOUTS: Final[dict[str, Layout]] = {
    "audio_folder": Layout(
        summary="metadata.csv or metadata.jsonl beside the audio",
        signs=TABLES,
        signs_of_file=(".csv", "metadata.jsonl"),
        read=read_audio_folder,
        often_holds=frozenset({"jsonl", "subtitles"}),  # a manifest made from the folder
    ),
    "jsonl": Layout(
        summary="one JSON object per line, with our keys or NeMo's",
        signs=(".jsonl",),
        signs_of_file=(".jsonl", ".json"),
        read=read_jsonl_manifests,
        often_holds=_SUBTITLES,
    ),
    "common_voice": Layout(
        summary="clips/ and one table per split",
        signs=(*SPLIT_TABLES, VALIDATED_TABLE),
        signs_of_file=(".tsv",),
        read=read_common_voice,
        often_holds=_SUBTITLES,
    ),
    "librispeech": Layout(
        summary="trees of .trans.txt", signs=(TRANSCRIPT,), read=read_librispeech, often_holds=_SUBTITLES
    ),
    "parquet": Layout(
        summary="files that contain the audio, as on the Hub",
        signs=(".parquet",),
        read=None,
        often_holds=_SUBTITLES,
    ),
    "webdataset": Layout(
        summary="uncompressed .tar shards",
        signs=(".tar", *COMPRESSED),
        read=read_webdataset,
        often_holds=_SUBTITLES,
    ),
    "subtitles": Layout(
        summary="long recordings, each with .srt or .vtt beside it, cut at the cues",
        signs=SUBTITLES,
        read=read_subtitles,
    ),
}

if TYPE_CHECKING:
    CorpusLayout: TypeAlias = str
    CorpusFormat: TypeAlias = str
else:
    CorpusLayout = Literal[tuple(LAYOUTS)]
    CorpusFormat = Literal[("auto", *LAYOUTS)]
"""``CorpusLayout``: a name of the table. ``CorpusFormat``: what the setting ``prepare.format`` accepts. Type checkers
cannot compute a Literal."""


def describe_formats() -> str:
    """Return the help text of a setting of type ``CorpusFormat``."""
    layouts = "; ".join(f"{name}: {layout.summary}" for name, layout in LAYOUTS.items())
    return f"Layout of the corpus. auto: detected from its files; {layouts}."


def read_corpus(
    location: CorpusLocation,
    format: CorpusFormat = "auto",  # noqa: A002  # the setting's name
    *,
    keep: Sequence[str] = (),
) -> list[CorpusRow]:
    """Read all rows of a corpus; a row that cannot be read becomes one with a ``fault``.

    Args:
        location: a folder or a file, local or behind any protocol fsspec knows.
        format: its layout.
        keep: names of further columns, which rows get in ``columns`` where they have a value.

    Returns:
        Rows in the order of the corpus, the same on every call; ids may occur twice.

    Raises:
        ManifestError: nothing there, an ambiguous layout, metadata that cannot be read, a column to keep that no row
            has, or Parquet, which ``stream_parquet`` reads.
    """
    files = list_files(location)
    read = LAYOUTS[detect_format(files, format)].read
    if read is None:
        raise ManifestError(files.location, "holds its audio in Parquet; stream it with stream_parquet")
    return list(keep_columns_of_rows(read(files), keep, source=files.location))


def detect_format(location: CorpusLocation, format: CorpusFormat = "auto") -> CorpusLayout:  # noqa: A002
    """Detect the layout of a corpus from the names of its files, unless ``format`` names it.

    Raises:
        ManifestError: nothing there, no known layout, or files of several layouts.
    """
    if format != "auto":
        return format
    files = list_files(location)
    found = {layout for name in files.names if (layout := _layout_of(name, is_single=files.is_single)) is not None}
    found -= {other for layout in found for other in LAYOUTS[layout].often_holds}
    if len(found) == 1:
        return found.pop()
    if not found:
        signs = {name: _signs_of(layout, is_single=files.is_single) for name, layout in LAYOUTS.items()}
        known = "; ".join(f"{name} ({', '.join(ends)})" for name, ends in signs.items())
        raise ManifestError(files.location, f"holds no file of a known format; looked for {known}")
    message = f"could be {' or '.join(sorted(found))}; say which with format, or name one folder or file of it"
    raise ManifestError(files.location, message)


def _layout_of(name: str, *, is_single: bool) -> CorpusLayout | None:
    """Return the layout a file is a sign of; whole names count before suffixes, as metadata.jsonl is also a .jsonl."""
    base = posixpath.basename(name).lower()
    signs = {layout: _signs_of(entry, is_single=is_single) for layout, entry in LAYOUTS.items()}
    exact = (layout for layout, ends in signs.items() if base in ends)
    ending = (layout for layout, ends in signs.items() if any(end[0] == "." and base.endswith(end) for end in ends))
    return next(exact, None) or next(ending, None)


def _signs_of(layout: Layout, *, is_single: bool) -> tuple[str, ...]:
    return layout.signs_of_file or layout.signs if is_single else layout.signs


def table_suffixes() -> frozenset[str]:
    """Return the suffixes of single files that are a corpus, ``{".csv", ".tar", ...}``."""
    signs = (sign for layout in LAYOUTS.values() for sign in layout.signs_of_file or layout.signs)
    return frozenset(sign for sign in signs if sign.startswith("."))
