"""Read LibriSpeech trees: ``<subset>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt`` and recordings.

Each line of a transcript is an utterance's id and its text. The text is upper case without punctuation and stays so;
the cleaning rule ``sentence_case`` lowers it.
"""

import posixpath
from collections.abc import Iterator

from sottovoce.data.corpora.fields import fault_row, read_text, split_of_name
from sottovoce.data.corpora.files import CorpusFiles
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError

TRANSCRIPT = ".trans.txt"
_AUDIO_SUFFIXES = (".flac", ".wav", ".opus", ".mp3", ".ogg")  # the corpus has FLAC; copies often have smaller files


def read_librispeech(files: CorpusFiles) -> Iterator[CorpusRow]:
    """Read every chapter; the name of the subset declares the split: ``dev-clean`` is validation.

    Raises:
        ManifestError: no transcript, or one that cannot be read.
    """
    names = files.ending(TRANSCRIPT)
    if not names:
        raise ManifestError(files.location, f"holds no {TRANSCRIPT}; give the folder of the subsets, or one subset")
    listed = frozenset(files.names)
    return (row for name in names for row in _read_chapter(files, name, listed=listed))


def _read_chapter(files: CorpusFiles, name: str, *, listed: frozenset[str]) -> Iterator[CorpusRow]:
    folder = posixpath.dirname(name)
    chapter = posixpath.basename(name)[: -len(TRANSCRIPT)]
    split = split_of_name(_subset_of(files, folder))
    for number, line in enumerate(files.read(name).split(b"\n"), start=1):
        if not line.strip():
            continue
        location = f"{name}:{number}"
        row_id, audio = location, ""
        try:
            row_id = line.split()[0].decode("utf-8")
            audio = files.reference(_find_recording(posixpath.join(folder, row_id), listed))
            audio.encode("utf-8")  # names of folders may have another encoding
            text = read_text({"text": line.decode("utf-8").strip()}, ("text",)) or ""
            yield CorpusRow(
                id=row_id,
                audio=audio,
                text=next(iter(text.split(maxsplit=1)[1:]), None),
                speaker=chapter.partition("-")[0],
                recording=chapter,
                split=split,
            )
        except ValueError as error:
            yield fault_row(error, location=location, row_id=row_id, audio=audio)


def _subset_of(files: CorpusFiles, folder: str) -> str:
    """Return the subset of a chapter, also if the corpus is a single subset."""
    parts = folder.split("/")
    return parts[-3] if len(parts) >= 3 else posixpath.basename(files.root)


def _find_recording(stem: str, listed: frozenset[str]) -> str:
    """Return an utterance's file; if there is none, the name it should have, for the reject."""
    names = (stem + suffix for suffix in _AUDIO_SUFFIXES)
    return next((name for name in names if name in listed), stem + _AUDIO_SUFFIXES[0])
