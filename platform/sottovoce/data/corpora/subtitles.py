"""Read long recordings with subtitles beside them: ``talk.mp4`` and ``talk.srt`` or ``talk.en.vtt``.

Each cue becomes a row: a part of the recording with the cue's text. So an hour of speech is cut where its text is
known. Packing joins the parts again, up to what a model reads (``data.pack_s``).

Sources: https://www.w3.org/TR/webvtt1/ sections 4.1 and 6.3. SubRip has no standard: it has the same blocks, with
numbers before the times and a comma in them.
"""

import html
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator

from sottovoce.data.corpora.fields import fault_row, parse_fields, split_of_folder
from sottovoce.data.corpora.files import CorpusFiles
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError
from sottovoce.text.languages import LANGUAGES

SUBTITLES = (".srt", ".vtt")
_OTHERS = (*SUBTITLES, ".txt", ".json", ".jsonl", ".csv", ".tsv", ".jpg", ".png", ".md", ".ass", ".lab", ".textgrid")
"""Suffixes of files beside a recording that are none."""
_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_CLOCK}\s+-->\s+{_CLOCK}(?:\s.*)?$")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")  # <i>, <v Speaker>, <00:01.000>, {\an8}


def read_subtitles(files: CorpusFiles) -> Iterator[CorpusRow]:
    """Read the cues of every subtitle file; the name of a folder may declare the split.

    A language in the name, as in ``talk.de.srt``, is the rows'.

    Raises:
        ManifestError: no subtitles, or a file that cannot be read.
    """
    names = files.ending(*SUBTITLES)
    if not names:
        raise ManifestError(files.location, f"holds no {' or '.join(SUBTITLES)}; lay them beside the recordings")
    beside: defaultdict[str, list[str]] = defaultdict(list)
    for name in _list_beside(files):
        if not name.lower().endswith(_OTHERS):
            beside[posixpath.splitext(name)[0]].append(name)
    return (row for name in names for row in _read_cues(files, name, beside))


def parse_cues(text: str) -> Iterator[tuple[int, float, float, str]]:
    """Yield line number, start [s], end [s] and text of each cue of SubRip or WebVTT; markup is left out."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        times = _TIMES.match(line)
        if times is not None:
            following = (lines[later] for later in range(number + 1, len(lines)))
            shown = _until_blank(following)
            start_s, end_s = _seconds(times.groups()[:4]), _seconds(times.groups()[4:])
            yield number + 1, start_s, end_s, " ".join(html.unescape(_MARKUP.sub("", " ".join(shown))).split())


def _list_beside(files: CorpusFiles) -> tuple[str, ...]:
    """List the files that a recording may be among; those of the folder if the corpus is a single subtitle file."""
    if not files.is_single:
        return files.names
    paths = files.filesystem.ls(files.root, detail=False)
    return tuple(sorted(posixpath.basename(path.rstrip("/")) for path in paths))


def _read_cues(files: CorpusFiles, name: str, beside: defaultdict[str, list[str]]) -> Iterator[CorpusRow]:
    stem, language = _split_name(name, beside)
    recordings = beside.get(stem, [])
    if len(recordings) != 1:
        found = f"several recordings beside it: {', '.join(recordings)}" if recordings else "no recording beside it"
        yield fault_row(ValueError(f"has {found}; keep one with the same name"), location=name, row_id=name)
        return
    audio = files.reference(recordings[0])
    split = split_of_folder(posixpath.dirname(name))
    text = files.read(name).decode("utf-8", "surrogateescape")
    for number, start_s, end_s, shown in parse_cues(text):
        if shown:
            record = {"text": shown, "start_s": start_s, "end_s": end_s, "language": language}
            row_id = f"{recordings[0]}@{start_s:010.3f}"
            fields = {**record, "id": row_id, "recording": recordings[0]}
            yield parse_fields(fields, location=f"{name}:{number}", row_id=row_id, audio=audio, split=split)


def _split_name(name: str, beside: defaultdict[str, list[str]]) -> tuple[str, str | None]:
    """Return the name without suffix and language, and the language if the name has one."""
    stem = posixpath.splitext(name)[0]
    shorter, _, language = stem.rpartition(".")
    is_language = language.lower().split("-")[0] in LANGUAGES
    return (shorter, language) if stem not in beside and is_language and shorter else (stem, None)


def _until_blank(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines up to the empty one that ends a cue, or up to the times of the next cue."""
    for line in lines:
        if not line.strip() or _TIMES.match(line):
            return
        yield line


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    return 3600.0 * int(hours or 0) + 60.0 * int(minutes or 0) + int(seconds or 0) + float(f"0.{fraction}")
