"""Uploads with a broken recording or a broken form, drawn from a seed."""

import io
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.random import Generator as Random

from benchmarks.abusive_clients import encode_av

_SECONDS = 0.2  # of audio in each recording
_BOUNDARY = b"fuzzed"
_ODD_TEXTS = (
    *("", "0", "-1", "1e400", "nan", "true", "[]", "{}", "{", "null", "\x00", "../../etc/passwd", "sottovoce@int8"),
    *("\ud83d", "a" * 20_000, "en", "xx", "segment", "word", "json", "srt", "verbose_json", "auto", '{"type":1}', "%s"),
)
_FIELDS = (
    *("model", "language", "prompt", "response_format", "temperature", "stream", "include[]", "file"),
    *("timestamp_granularities[]", "chunking_strategy", "chunking_strategy[type]", "nope", ""),
)
_HEADER_BYTES = 64  # first bytes of a container, where most mutations go


@dataclass(frozen=True)
class Upload:
    """One request."""

    body: bytes
    content_type: bytes


def recordings() -> list[bytes]:
    """Encode a fifth of a second of noise in every container that people send."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(48_000 * _SECONDS)).astype(np.float32)
    encoded = []
    for container, subtype in (
        *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
        *(("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16")),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 48_000, format=container, subtype=subtype)
        encoded.append(buffer.getvalue())
    for container, codec in (("mp4", "aac"), ("webm", "libopus"), ("ogg", "libopus"), ("adts", "aac"), ("avi", "mp3")):
        encoded.append(encode_av(noise, container, codec, rate=48_000))
    return encoded


def mutated_uploads(num_uploads: int, *, seed: int | Sequence[int]) -> Generator[Upload, None, None]:
    """Yield uploads: three of four with a mutated recording, the others with a mutated form."""
    random = np.random.default_rng(seed)
    encoded = recordings()
    for _ in range(num_uploads):
        data = encoded[random.integers(len(encoded))]
        if random.random() < 0.75:
            yield Upload(form(_mutate(data, encoded, random), {"model": "sottovoce"}), _content_type(_BOUNDARY))
        else:
            yield _mutate_form(data, random)


def form(data: bytes, fields: Mapping[str, str]) -> bytes:
    """Return a multipart body with a file and text fields."""
    parts = [_part(name, value.encode("utf-8", "surrogatepass")) for name, value in fields.items()]
    parts.append(_part("file", data, filename="a.wav"))
    return b"".join(parts) + b"--" + _BOUNDARY + b"--\r\n"


def _part(name: str, value: bytes, filename: str | None = None) -> bytes:
    head = f'content-disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return b"--" + _BOUNDARY + b"\r\n" + head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + value + b"\r\n"


def _content_type(boundary: bytes) -> bytes:
    return b"multipart/form-data; boundary=" + boundary


def _mutate(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Flip, overwrite, cut, insert, repeat or splice bytes, mostly those of the header."""
    array = bytearray(data)
    for _ in range(random.integers(1, 4)):
        span = max(1, min(_HEADER_BYTES, len(array)) if random.random() < 0.6 else len(array))
        _MUTATIONS[random.integers(len(_MUTATIONS))](array, int(random.integers(span)), others, random)
    return bytes(array)


def _flip(array: bytearray, place: int, _: Sequence[bytes], random: Random) -> None:
    for index in random.integers(0, place + 1, size=random.integers(1, 8)):
        array[index : index + 1] = random.bytes(1)


def _overwrite(array: bytearray, place: int, _: Sequence[bytes], random: Random) -> None:
    array[place : place + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"][random.integers(3)]


def _cut(array: bytearray, place: int, _others: Sequence[bytes], _random: Random) -> None:
    del array[place:]


def _insert(array: bytearray, place: int, _: Sequence[bytes], random: Random) -> None:
    array[place:place] = random.bytes(int(random.integers(1, 64)))


def _repeat(array: bytearray, place: int, _others: Sequence[bytes], _random: Random) -> None:
    array += array[place : place + 4096]


def _splice(array: bytearray, place: int, others: Sequence[bytes], random: Random) -> None:
    array[place:] = others[int(random.integers(len(others)))][place:]


_MUTATIONS = (_flip, _overwrite, _cut, _insert, _repeat, _splice)


def _mutate_form(data: bytes, random: Random) -> Upload:
    fields = {"model": "sottovoce"} if random.random() < 0.9 else {}
    for _ in range(random.integers(0, 4)):
        fields[_FIELDS[random.integers(len(_FIELDS))]] = _ODD_TEXTS[random.integers(len(_ODD_TEXTS))]
    body = bytearray(form(data, fields))
    boundary = _BOUNDARY
    kind = random.random()
    if kind < 0.4:
        for index in random.integers(0, min(len(body), 400), size=random.integers(1, 6)):
            body[index] = random.integers(256)
    elif kind < 0.5:
        del body[random.integers(len(body)) :]
    elif kind < 0.6:
        boundary = random.bytes(int(random.integers(0, 80))).replace(b"\n", b"").replace(b"\r", b"")
    charset = (
        b"" if random.random() < 0.9 else b"; charset=" + [b"utf-16", b"undefined", b"utf-7"][int(random.integers(3))]
    )
    return Upload(bytes(body), _content_type(boundary) + charset)
