"""Decode any recording to the waveform that every stage reads; training and serving call the same functions.

Shapes: S samples of the result, N samples per channel in a block, C channels.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr

from sottovoce.audio.encoded import Encoded, EncodedBytes
from sottovoce.audio.ffmpeg import read_ffmpeg
from sottovoce.audio.libsndfile import is_length_known, open_libsndfile, read_libsndfile
from sottovoce.audio.native_messages import NativeMessages
from sottovoce.audio.reference import open_audio
from sottovoce.audio.remote import name_fault
from sottovoce.audio.waveform import AudioFormat, Block, Downmix, to_pcm
from sottovoce.errors import (
    AudioDecodeError,
    AudioError,
    AudioExpansionError,
    AudioTooLongError,
    EmptyAudioError,
    NonFiniteAudioError,
)
from sottovoce.schema import MAX_DURATION_S, SAMPLING_RATE, Pcm, Waveform

MAX_DECODED_BYTES = 256 * 2**20
"""Decoded size, in bytes of float32 over all channels at their own rate, that is allowed for any recording."""
MAX_BYTES_PER_S = 48_000 * 8 * 4
"""Decoded bytes allowed for each second of the duration limit, above that size: eight channels at 48 kHz. The ratio to
the encoded bytes says nothing: hours of silence, or speech at 6 kbit/s, unpack to several hundred times their size."""

SamplesT = TypeVar("SamplesT", Pcm, Waveform)

_PADDING_SAMPLES = 2 * 1_152
"""Samples that a lossy codec may add to a recording of exactly the longest duration: an encoder's delay before it and
padding to whole frames behind it. Two frames of mp3, which are longer than two of AAC."""
_ROUNDING = 1e-6  # samples; a product of floats may lie that much below a whole number
_PIECE_SAMPLES = 1 << 19  # per channel; only silence comes in larger blocks

_MIN_RATE, _MAX_RATE = 1_000, 768_000  # Hz; nothing that holds speech lies outside


def read_audio(
    reference: str | Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> Waveform:
    """Read a recording and decode it; see ``decode_audio``.

    Args:
        reference: a path, a URI, or a part of a file; see ``reference.py``.
        start_s: where to start.
        duration_s: seconds to decode; to the end when None. Of a long file, only what these need is read.
        max_duration_s: the limit on what is decoded.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: a protocol whose package is not installed.
        AudioDecodeError: a folder, a local file that may not be read, a part outside the file; and what
            ``decode_audio`` raises.
        StorageError: a disk or a server that does not answer; no fault of the recording.
    """
    waveform, _ = read_audio_with_format(
        reference, start_s=start_s, duration_s=duration_s, max_duration_s=max_duration_s
    )
    return waveform


def read_audio_with_format(
    reference: str | Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> tuple[Waveform, AudioFormat]:
    """Read and decode like ``read_audio``; also return how the recording was stored."""
    is_part = start_s > 0 or duration_s is not None
    with open_audio(reference, is_part=is_part) as (file, source):
        return _decode(file, source=source, start_s=start_s, duration_s=duration_s, max_duration_s=max_duration_s)


def decode_audio(
    data: bytes,
    *,
    source: str,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> Waveform:
    """Decode one recording, or a part of it.

    Decoding works in blocks: memory holds the result and some MiB at most, whatever a header declares.

    Args:
        data: bytes of any container that libsndfile or FFmpeg's libraries read, any rate, any channel count.
        source: name for messages.
        start_s: where to start.
        duration_s: seconds to decode; to the end when None. A recording that ends earlier yields a shorter waveform.
        max_duration_s: the limit on what is decoded.

    Returns:
        (S,) float32 in [-1, 1], mono (mean of the channels; see ``waveform.py``), 16 000 Hz.

    Raises:
        AudioDecodeError: unreadable, damaged or truncated bytes, or ``start_s`` beyond the end.
        EmptyAudioError: no samples.
        NonFiniteAudioError: NaN or infinite samples.
        AudioTooLongError: more than ``max_duration_s``, noticed while decoding. A lossy codec may add two frames of
            padding, which are cut off.
    """
    waveform, _ = decode_audio_with_format(
        data, source=source, start_s=start_s, duration_s=duration_s, max_duration_s=max_duration_s
    )
    return waveform


def decode_audio_with_format(
    data: bytes,
    *,
    source: str,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> tuple[Waveform, AudioFormat]:
    """Decode like ``decode_audio``; also return how the recording was stored."""
    file = EncodedBytes(data)
    return _decode(file, source=source, start_s=start_s, duration_s=duration_s, max_duration_s=max_duration_s)


def read_pcm(reference: str | Path, *, max_duration_s: float = MAX_DURATION_S) -> Pcm:
    """Read a recording and decode it as ``decode_pcm`` does; errors as ``read_audio``."""
    with open_audio(reference, is_part=False) as (file, source):
        return _decode_to(to_pcm, file, source=source, start_s=0.0, duration_s=None, max_duration_s=max_duration_s)[0]


def decode_pcm(data: bytes, *, source: str, max_duration_s: float = MAX_DURATION_S) -> Pcm:
    """Decode one recording like ``decode_audio``, but never hold all of it in float32.

    Returns:
        (S,) int16, mono, 16 000 Hz: 115 MB per hour, and twice that while the blocks are joined.

    Raises:
        AudioDecodeError, EmptyAudioError, NonFiniteAudioError, AudioTooLongError: see ``decode_audio``.
    """
    file = EncodedBytes(data)
    return _decode_to(to_pcm, file, source=source, start_s=0.0, duration_s=None, max_duration_s=max_duration_s)[0]


def decode_pcm_blocks(
    file: EncodedBytes, *, source: str, max_duration_s: float, max_decoded_bytes: int | None = None
) -> Iterator[Pcm | None]:
    """Decode one recording like ``decode_pcm``, block by block, and hold none of the blocks.

    Args:
        file: any container.
        source: name for messages.
        max_duration_s: the limit on what is decoded.
        max_decoded_bytes: the limit on decoded float32 bytes over all channels; None for that of ``decode_audio``.

    Yields:
        (S,) int16 blocks. None drops all blocks before it: the channels cancelled each other out, and decoding begins
        again with some of them inverted.

    Raises:
        AudioDecodeError, EmptyAudioError, NonFiniteAudioError, AudioTooLongError: see ``decode_audio``.
    """
    if not file.num_bytes:
        raise EmptyAudioError(source)
    max_bytes = max_decoded_bytes or _largest_size(max_duration_s)

    def pieces(downmix: Downmix) -> Iterator[Pcm]:
        with closing(_read_blocks(file, source=source, start_s=0.0, duration_s=None)) as blocks:
            limited = _limit(
                blocks, file, source=source, duration_s=None, max_duration_s=max_duration_s, max_bytes=max_bytes
            )
            for _, piece in _convert_blocks(limited, downmix, to_pcm, source=source):
                yield piece

    downmix = Downmix()
    yield from pieces(downmix)
    signs = downmix.cancelling_signs()
    if signs is not None:
        yield None
        yield from pieces(Downmix(signs))


def _decode(
    file: Encoded, *, source: str, start_s: float, duration_s: float | None, max_duration_s: float
) -> tuple[Waveform, AudioFormat]:
    return _decode_to(
        lambda waveform: waveform,
        file,
        source=source,
        start_s=start_s,
        duration_s=duration_s,
        max_duration_s=max_duration_s,
    )


def _decode_to(
    convert: Callable[[Waveform], SamplesT],
    file: Encoded,
    *,
    source: str,
    start_s: float,
    duration_s: float | None,
    max_duration_s: float,
) -> tuple[SamplesT, AudioFormat]:
    """Decode block by block; ``convert`` sets the type of the samples."""
    if not file.num_bytes:
        raise EmptyAudioError(source)

    def decode(downmix: Downmix) -> tuple[SamplesT, AudioFormat]:
        blocks = _read_blocks(file, source=source, start_s=start_s, duration_s=duration_s)
        with closing(blocks):
            limited = _limit(
                blocks,
                file,
                source=source,
                duration_s=duration_s,
                max_duration_s=max_duration_s,
                max_bytes=_largest_size(max_duration_s),
            )
            return _join(limited, downmix, convert, source=source)

    with _name_read_faults(file, source):
        downmix = Downmix()
        decoded = decode(downmix)
        signs = downmix.cancelling_signs()
        return decoded if signs is None else decode(Downmix(signs))


@contextmanager
def _name_read_faults(file: Encoded, source: str) -> Iterator[None]:
    """Raise the storage error if reading failed: a decoder only sees a file that ends early."""
    try:
        yield
    except AudioError as error:
        if isinstance(error, AudioDecodeError):
            file.find_fault()
        if file.fault is None:
            raise
    if file.fault is not None:
        raise name_fault(file.fault, source) from file.fault


def _join(
    blocks: Iterator[tuple[AudioFormat, Block]],
    downmix: Downmix,
    convert: Callable[[Waveform], SamplesT],
    *,
    source: str,
) -> tuple[SamplesT, AudioFormat]:
    """Mix, resample, convert and join the blocks."""
    converted = list(_convert_blocks(blocks, downmix, convert, source=source))
    pieces = [piece for _, piece in converted]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces), converted[-1][0]


def _convert_blocks(
    blocks: Iterator[tuple[AudioFormat, Block]],
    downmix: Downmix,
    convert: Callable[[Waveform], SamplesT],
    *,
    source: str,
) -> Iterator[tuple[AudioFormat, SamplesT]]:
    """Mix, resample and convert each block; the last one may be the rest that the resampler held back."""
    audio_format: AudioFormat | None = None
    resampler: soxr.ResampleStream | None = None
    num_samples = 0
    for audio_format, block in blocks:
        mono = downmix.mix(block)
        rate = audio_format.sampling_rate
        if rate != SAMPLING_RATE:
            resampler = resampler or soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
            mono = _resample(resampler, mono)
        num_samples += len(mono)
        yield audio_format, convert(mono)
    if audio_format is None:
        raise EmptyAudioError(source)
    if downmix.num_non_finite:
        raise NonFiniteAudioError(source, downmix.num_non_finite)
    if resampler is not None:
        rest = _resample(resampler, np.zeros(0, np.float32), last=True)
        num_samples += len(rest)
        yield audio_format, convert(rest)
    if not num_samples:
        raise EmptyAudioError(source)


def _resample(resampler: soxr.ResampleStream, mono: Waveform, *, last: bool = False) -> Waveform:
    """Resample the next block, within [-1, 1]: the filter overshoots at edges."""
    resampled: Waveform = resampler.resample_chunk(mono, last=last)
    return np.clip(resampled, -1.0, 1.0, out=resampled)


def _read_blocks(
    file: Encoded, *, source: str, start_s: float, duration_s: float | None
) -> Generator[tuple[AudioFormat, Block], None, None]:
    """Decode with libsndfile; use FFmpeg's libraries for formats that libsndfile reads worse or not at all."""
    messages = NativeMessages()
    sound = None if _is_ogg(file) else open_libsndfile(file, messages)
    if sound is not None and not is_length_known(sound):
        sound.close()
        sound = None
    if sound is None:
        file.seek(0)
        yield from read_ffmpeg(file, source=source, start_s=start_s, duration_s=duration_s)
    else:
        yield from read_libsndfile(sound, file, messages, source=source, start_s=start_s, duration_s=duration_s)


def _is_ogg(file: Encoded) -> bool:
    """Whether the file is Ogg. FFmpeg decodes all streams chained in one file (internet radio), libsndfile the first.

    FFmpeg also takes a third of libsndfile's time for Opus, and half for Vorbis (33 and 18 ms for 11 s of stereo at
    44.1 kHz, EPYC, 2026).
    """
    file.seek(0)
    head = file.read(4) or b""
    file.seek(0)
    return head == b"OggS"


def _limit(
    blocks: Iterator[tuple[AudioFormat, Block]],
    file: Encoded,
    *,
    source: str,
    duration_s: float | None,
    max_duration_s: float,
    max_bytes: int,
) -> Iterator[tuple[AudioFormat, Block]]:
    """Stop after ``duration_s``; raise as soon as a limit is exceeded, and before the block that exceeds it is copied.

    A codec's padding beyond ``max_duration_s`` is cut off.
    """
    first_rate: int | None = None
    num_decoded = num_decoded_bytes = 0
    for audio_format, block in blocks:
        rate = audio_format.sampling_rate
        first_rate = first_rate or rate
        if rate != first_rate or not _MIN_RATE <= rate <= _MAX_RATE:
            raise AudioDecodeError(source, f"a sampling rate of {rate} Hz, or one that changes, cannot be used")
        num_wanted = len(block) if duration_s is None else round(duration_s * rate) - num_decoded
        wanted = block[: max(0, num_wanted)]
        num_kept = max(0, int(max_duration_s * rate + _ROUNDING) - num_decoded)
        num_decoded += len(wanted)
        num_decoded_bytes += wanted.size * 4  # as float32, whatever the block's type
        if num_decoded > max_duration_s * rate + (_PADDING_SAMPLES if audio_format.bits is None else 0):
            raise AudioTooLongError(source, max_duration_s)
        if num_decoded_bytes > max_bytes:
            raise AudioExpansionError(source, f"{file.num_bytes} bytes unpack to more than {max_bytes} bytes")
        if not len(wanted):
            return
        for start in range(0, min(len(wanted), num_kept), _PIECE_SAMPLES):  # silence takes memory only from here on
            yield audio_format, wanted[start : min(start + _PIECE_SAMPLES, num_kept)]


def _largest_size(max_duration_s: float) -> int:
    """Return the decoded bytes that a recording within a duration limit may have."""
    return max(MAX_DECODED_BYTES, round(MAX_BYTES_PER_S * max_duration_s))
