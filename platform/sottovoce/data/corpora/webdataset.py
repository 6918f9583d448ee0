"""Read WebDataset shards: tar files in which the members of an utterance share their name up to the first dot.

Beside the recording (``utt1.flac``) is its transcript (``utt1.txt``), or a JSON object with our keys (``utt1.json``),
or both; the transcript then takes precedence. Only headers and these small members are read: the row refers to the
recording by its byte range in the shard, so shards must not be compressed.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from sottovoce.data.corpora.fields import fault_row, parse_fields, printable, split_of_name
from sottovoce.data.corpora.files import CorpusFiles, utf8_bytes
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.data.corpora.tables import Record, read_json
from sottovoce.errors import ManifestError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_AUDIO = frozenset({"flac", "wav", "mp3", "ogg", "opus", "m4a", "webm", "mp4", "aac"})
_MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<kind>[^/]+)")
_READ_AHEAD = 1 << 20  # bytes fetched at once from remote shards: short clips share a fetch, long ones are skipped


@dataclass
class _Group:
    """The members of one utterance."""

    audio: list[str] = field(default_factory=list)
    """Byte range of each recording, ``START-STOP``."""
    metadata: dict[str, bytes] = field(default_factory=dict)
    """Content of the ``txt`` and the ``json`` member."""


def read_webdataset(files: CorpusFiles) -> Iterator[CorpusRow]:
    """Read every shard; its name or folder may declare the split (``train-000001.tar``).

    Raises:
        ManifestError: no shard, a compressed one, or an incomplete tar file.
    """
    compressed = files.ending(*COMPRESSED)
    if compressed:
        message = "is compressed, and no part of it can be read alone; unpack it to a plain .tar"
        raise ManifestError(files.shown(compressed[0]), message)
    shards = list(files.names) if files.is_single else files.ending(".tar")
    if not shards:
        raise ManifestError(files.location, "holds no .tar shard")
    return (row for shard in shards for row in _read_shard(files, shard))


def _read_shard(files: CorpusFiles, shard: str) -> Iterator[CorpusRow]:
    groups: dict[str, _Group] = {}
    try:
        with (
            files.filesystem.open(files.path(shard), "rb", block_size=_READ_AHEAD) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
        ):
            for member in tar:
                _add(member, tar, groups)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ManifestError(files.shown(shard), f"is no whole, uncompressed tar file: {error}") from error
    for key, group in groups.items():
        yield _parse(group, files=files, shard=shard, key=key)


def _add(member: tarfile.TarInfo, tar: tarfile.TarFile, groups: dict[str, _Group]) -> None:
    """Add a member to the group of its name; ignore members of unknown kinds."""
    match = _MEMBER.fullmatch(member.name)
    if match is None or not member.isfile():
        return
    kind = match["kind"].lower().rpartition(".")[2]
    group = groups.setdefault(match["key"].removeprefix("./"), _Group())
    if kind in _AUDIO:
        group.audio.append(f"{member.offset_data}-{member.offset_data + member.size}")
    elif kind in ("txt", "json"):
        content = tar.extractfile(member)
        assert content is not None  # isfile
        group.metadata[kind] = content.read()


def _parse(group: _Group, *, files: CorpusFiles, shard: str, key: str) -> CorpusRow:
    location = printable(f"{shard}/{key}")
    audio = f"{files.reference(shard)}#bytes={group.audio[0]}" if group.audio else ""
    if len(group.audio) != 1:
        fault = ValueError(f"holds {len(group.audio)} recordings, not one")
        return fault_row(fault, location=location, row_id=location, audio=audio)
    try:
        record = _read_metadata(group)
    except ValueError as error:
        return fault_row(error, location=location, row_id=location, audio=audio)
    return parse_fields(record, location=location, row_id=location, audio=audio, split=split_of_name(shard))


def _read_metadata(group: _Group) -> Record:
    texts: dict[str, bytes] = {}
    for kind, content in group.metadata.items():
        try:
            texts[kind] = utf8_bytes(content)
        except UnicodeError as error:
            raise UnicodeError(f"its .{kind} {error}") from error
    record = read_json(texts.get("json", b"{}"))
    if isinstance(record, ValueError):
        raise record
    return {**record, "text": texts["txt"].decode("utf-8").strip()} if "txt" in texts else record
