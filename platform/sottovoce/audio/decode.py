"""Turn any recording into the one waveform every stage reads; training and serving call this same function.

Shapes: S samples of the result, N samples per channel in a block, C channels.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from sottovoce.audio.ffmpeg import read_ffmpeg
from sottovoce.audio.libsndfile import open_libsndfile, read_libsndfile
from sottovoce.errors import AudioDecodeError, AudioTooLongError, EmptyAudioError, NonFiniteAudioError
from sottovoce.schema import SAMPLING_RATE, Waveform

MAX_DECODED_BYTES = 256 * 2**20
"""Float32 bytes, all channels at their own rate, that any recording may unpack to."""
MAX_EXPANSION = 256
"""Above that cap, decoded bytes per encoded byte; Opus at 16 kbit/s unpacks 96-fold to 48 kHz mono."""

_MIN_RATE, _MAX_RATE = 1_000, 768_000  # Hz; nothing that holds speech lies outside


def read_audio(
    path: Path, *, start_s: float = 0.0, duration_s: float | None = None, max_duration_s: float = 7200.0
) -> Waveform:
    """Decode a file; see ``decode_audio``.

    Raises:
        FileNotFoundError: no file there.
        AudioDecodeError: a folder, or a file that may not be read; and what ``decode_audio`` raises.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AudioDecodeError(str(path), error.strerror or "it cannot be read") from error
    return decode_audio(data, source=str(path), start_s=start_s, duration_s=duration_s, max_duration_s=max_duration_s)


def decode_audio(
    data: bytes,
    *,
    source: str,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = 7200.0,
) -> Waveform:
    """Decode one recording, or the part of it that is asked for.

    Works in blocks: at no time is more in memory than the result and some MiB, whatever a header claims.

    Args:
        data: bytes of any container that libsndfile or FFmpeg's libraries read, any rate, any channel count.
        source: name for messages.
        start_s: first second wanted.
        duration_s: seconds wanted; to the end when None. A recording that ends earlier gives what it has.
        max_duration_s: the limit on what is decoded.

    Returns:
        (S,) float32 in [-1, 1], mono (mean of the channels), 16 000 Hz.

    Raises:
        AudioDecodeError: unreadable, damaged or truncated bytes, or ``start_s`` beyond the end.
        EmptyAudioError: no samples.
        NonFiniteAudioError: NaN or infinite samples.
        AudioTooLongError: more than ``max_duration_s``, noticed while decoding.
    """
    if not data:
        raise EmptyAudioError(source)
    pieces: list[Waveform] = []
    num_non_finite = 0
    resampler: soxr.ResampleStream | None = None
    with closing(_read_blocks(data, source=source, start_s=start_s)) as blocks:
        limited = _limit(blocks, len(data), source=source, duration_s=duration_s, max_duration_s=max_duration_s)
        for rate, block in limited:
            resampler = resampler or soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
            mono, num_faulty = _mix(block)
            num_non_finite += num_faulty
            pieces.append(resampler.resample_chunk(mono))
    if resampler is None:
        raise EmptyAudioError(source)
    if num_non_finite:
        raise NonFiniteAudioError(source, num_non_finite)
    pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    waveform = np.concatenate(pieces)
    if not len(waveform):
        raise EmptyAudioError(source)
    return np.clip(waveform, -1.0, 1.0, out=waveform)


def _read_blocks(data: bytes, *, source: str, start_s: float) -> Generator[tuple[int, NDArray[np.float32]], None, None]:
    """Read with libsndfile, and with FFmpeg's libraries what libsndfile does not know."""
    file = open_libsndfile(data)
    if file is None:
        yield from read_ffmpeg(data, source=source, start_s=start_s)
    else:
        yield from read_libsndfile(file, data, source=source, start_s=start_s)


def _limit(
    blocks: Iterator[tuple[int, NDArray[np.float32]]],
    num_encoded_bytes: int,
    *,
    source: str,
    duration_s: float | None,
    max_duration_s: float,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Stop after ``duration_s``, and raise as soon as a limit is passed."""
    first_rate: int | None = None
    num_decoded = num_decoded_bytes = 0
    for rate, block in blocks:
        first_rate = first_rate or rate
        if rate != first_rate or not _MIN_RATE <= rate <= _MAX_RATE:
            raise AudioDecodeError(source, f"a sampling rate of {rate} Hz, or one that changes, cannot be used")
        num_wanted = len(block) if duration_s is None else round(duration_s * rate) - num_decoded
        block = block[: max(0, num_wanted)]
        num_decoded += len(block)
        num_decoded_bytes += block.nbytes
        if num_decoded > max_duration_s * rate:
            raise AudioTooLongError(source, max_duration_s)
        if num_decoded_bytes > max(MAX_DECODED_BYTES, MAX_EXPANSION * num_encoded_bytes):
            raise AudioDecodeError(source, f"{num_encoded_bytes} bytes unpack to more than {num_decoded_bytes} bytes")
        if not len(block):
            return
        yield rate, block


def _mix(block: NDArray[np.float32]) -> tuple[Waveform, int]:
    """Average (N, C) channels to (N,) in [-1, 1], and count the samples that are no numbers."""
    num_faulty = block.size - int(np.count_nonzero(np.isfinite(block)))
    if num_faulty:
        block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
    mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float64)  # float64: cannot overflow
    return np.ascontiguousarray(np.clip(mono, -1.0, 1.0), dtype=np.float32), num_faulty
