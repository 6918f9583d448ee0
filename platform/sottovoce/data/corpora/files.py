"""The files of a corpus, local or behind any fsspec protocol, listed once."""

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from sottovoce.audio.remote import open_file_system, redact
from sottovoce.errors import ManifestError

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BOM = b"\xef\xbb\xbf"  # spreadsheets and editors of Windows write it before UTF-8
# Byte order marks; without one, text whose first two characters are ASCII. UTF-32 first: its mark begins with UTF-16's.
_UTF_32 = re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|([^\0]\0\0\0){2}|(\0\0\0[^\0]){2}", re.DOTALL)
_UTF_16 = re.compile(rb"\xff\xfe|\xfe\xff|([^\0]\0){2}|(\0[^\0]){2}", re.DOTALL)


@dataclass(frozen=True)
class CorpusFiles:
    """The files of a corpus, as a list of names."""

    filesystem: AbstractFileSystem
    root: str
    """The corpus's folder, in the file system's notation."""
    names: tuple[str, ...]
    """Files below ``root``, relative to it, sorted; without the clips beside Common Voice tables."""
    is_single: bool = False
    """Whether the location is one file and not a folder."""

    @property
    def location(self) -> str:
        """The folder or the single file, for messages."""
        return self.shown(self.names[0] if self.is_single else "")

    def ending(self, *suffixes: str) -> list[str]:
        """Return the names that end in one of the suffixes, ignoring case."""
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def path(self, name: str) -> str:
        """Return a file's path in the file system's notation."""
        return posixpath.normpath(posixpath.join(self.root, name))

    def reference(self, name: str) -> str:
        """Return the absolute local path or the URI of a file."""
        return self._refer(self.path(name))

    def shown(self, name: str) -> str:
        """Return a file's reference for messages, without secrets in the URI."""
        return redact(self.reference(name))

    def resolve(self, name: str, folder: str) -> str:
        """Return the reference for a file name in metadata.

        Args:
            name: a path relative to the metadata's own folder, an absolute one of this machine, or a URI.
            folder: the metadata's folder, relative to the corpus.
        """
        if _PROTOCOL.match(name):
            return name.removeprefix("file://")
        if name.startswith("/"):
            return os.path.normpath(name)
        return self.reference(posixpath.join(folder, name))

    def id_of(self, reference: str) -> str:
        """Return the id of a recording: its path relative to the corpus, if it is inside."""
        return reference.removeprefix(self._refer(self.root).rstrip("/") + "/")

    def read(self, name: str) -> bytes:
        """Read a whole file of text, and return its bytes in UTF-8 without a byte order mark.

        Some of the bytes may have another encoding; rows of such text are faults.

        Raises:
            ManifestError: it is missing, cannot be read, or is UTF-16 or UTF-32.
        """
        try:
            return utf8_bytes(bytes(self.filesystem.cat_file(self.path(name))))
        except UnicodeError as error:
            raise ManifestError(self.shown(name), str(error)) from error
        except OSError as error:
            raise ManifestError(self.shown(name), f"cannot be read: {error.strerror or error}") from error

    def _refer(self, path: str) -> str:
        return path if isinstance(self.filesystem, LocalFileSystem) else str(self.filesystem.unstrip_protocol(path))


CorpusLocation: TypeAlias = str | Path | CorpusFiles
"""A folder or a file: a local path, a URI such as s3://bucket/folder or hf://datasets/user/name, or listed files."""


def list_files(location: CorpusLocation) -> CorpusFiles:
    """List the files of a corpus.

    Args:
        location: a folder, listed with everything below it, or a single file.

    Raises:
        ManifestError: there is nothing, or it cannot be listed.
        ConfigError: the protocol is unknown, or its package is not installed; the message names it.
    """
    if isinstance(location, CorpusFiles):
        return location
    filesystem, root = open_filesystem(location)
    try:
        if filesystem.info(root)["type"] == "file":  # isfile and isdir would hide why it cannot be read
            folder, name = posixpath.split(root)
            return CorpusFiles(filesystem, folder, (name,), is_single=True)
        return CorpusFiles(filesystem, root, tuple(sorted(_list_below(filesystem, root))))
    except FileNotFoundError as error:
        raise ManifestError(redact(str(location)), "there is no such folder or file") from error
    except OSError as error:
        raise ManifestError(redact(str(location)), f"cannot be listed: {error.strerror or error}") from error


def utf8_bytes(data: bytes) -> bytes:
    """Return text without the byte order mark that some programs write before UTF-8.

    Raises:
        UnicodeError: it is UTF-16 or UTF-32; the message says which, and what to do.
    """
    for name, pattern in (("UTF-32", _UTF_32), ("UTF-16", _UTF_16)):
        if pattern.match(data):
            raise UnicodeError(f"is {name}; save it as UTF-8")
    return data.removeprefix(_BOM)


def open_filesystem(location: str | Path) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a location, and the location's path in it.

    Raises:
        ConfigError: the protocol is unknown, or its package is not installed; the message names it.
        ManifestError: the location chains protocols.
    """
    text = str(location)
    if "::" in text and "://" in text:
        raise ManifestError(redact(text), "chains protocols, and its files have no address of their own; name one")
    filesystem, path = open_file_system(text)
    if isinstance(filesystem, LocalFileSystem):
        path = Path(path).resolve().as_posix()
    return filesystem, path.rstrip("/") or path


def _list_below(filesystem: AbstractFileSystem, root: str) -> list[str]:
    """List every file below a folder, except the clips of Common Voice, which may be a million."""
    entries = {posixpath.basename(path.rstrip("/")): path for path in filesystem.ls(root, detail=False)}
    if "clips" in entries and any(name.endswith(".tsv") for name in entries):
        paths = list(entries.values())
    else:
        paths = filesystem.find(root)
    return [path[len(root) :].lstrip("/") for path in paths if path != root]
