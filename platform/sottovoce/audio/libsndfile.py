"""Blocks of samples from the containers libsndfile reads: wav, flac, ogg, mp3, aiff, caf, au and more.

Shapes: N samples per channel in a block, C channels.
"""

import io
import re
from collections.abc import Iterator

import numpy as np
import soundfile
from numpy.typing import NDArray

from sottovoce.errors import AudioDecodeError

_BLOCK_SAMPLES = 1 << 20  # over all channels: 4 MiB of float32, whatever the header claims
_BLOCK_S = 10  # s, so that a forged low rate cannot blow up one block's resampling
_OPEN_ENDED_BYTES = 0x7FFF0000  # writers to a pipe leave 2 or 4 GiB as the size of the data
_DATA_CHUNK = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)


class _Memory(io.BytesIO):
    """Bytes whose ``seek`` never raises: an exception inside libsndfile's callback would only reach stderr."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def open_libsndfile(data: bytes) -> soundfile.SoundFile | None:
    """Open encoded audio, or give None when libsndfile does not know the container."""
    try:
        return soundfile.SoundFile(_Memory(data))
    except (soundfile.SoundFileError, ValueError, TypeError):  # the latter two: values of a forged header
        return None


def read_libsndfile(
    file: soundfile.SoundFile, data: bytes, *, source: str, start_s: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Decode block by block from ``start_s`` to the end, and close the file.

    Args:
        file: from ``open_libsndfile``.
        data: the same bytes.
        source: name for messages.
        start_s: first second wanted; reached by seeking.

    Yields:
        Sampling rate in Hz, and (N, C) float32.

    Raises:
        AudioDecodeError: damaged or truncated, or ``start_s`` lies beyond the end.
    """
    with file:
        _check_data_chunk(file, source)
        num_block = max(1, min(_BLOCK_SAMPLES // file.channels, file.samplerate * _BLOCK_S))
        try:
            position = round(start_s * file.samplerate)
            if position and position >= file.frames > 0:
                raise AudioDecodeError(source, f"start_s {start_s:g} lies beyond its end")
            if position and file.frames:
                file.seek(position)
            while len(block := file.read(num_block, dtype="float32", always_2d=True)):
                position += len(block)
                yield file.samplerate, block
        except (soundfile.SoundFileError, ValueError, OverflowError) as error:
            if isinstance(error, AudioDecodeError):
                raise
            raise AudioDecodeError(source, f"damaged {file.format} data") from error
        if position < file.frames and _has_exact_length(file, data):
            raise AudioDecodeError(source, f"truncated: {position} of {file.frames} samples are there")


def _check_data_chunk(file: soundfile.SoundFile, source: str) -> None:
    """Refuse a wav file cut short; libsndfile corrects the size in silence and notes it in its log."""
    match = _DATA_CHUNK.search(file.extra_info)
    if match is None:
        return
    declared, present = int(match[1]), int(match[2])
    if present < declared < _OPEN_ENDED_BYTES:
        raise AudioDecodeError(source, f"truncated: {present} of {declared} bytes of samples are there")


def _has_exact_length(file: soundfile.SoundFile, data: bytes) -> bool:
    """Say whether ``file.frames`` is declared rather than estimated, as it is for an mp3 without a Xing or Info tag."""
    unknown = file.frames >= 1 << 62  # a flac written to a pipe
    return not unknown and (file.format != "MP3" or b"Xing" in data[:65536] or b"Info" in data[:65536])
