"""Blocks of samples from the containers libsndfile reads: wav, flac, mp3, aiff, caf, au and more.

Shapes: N samples per channel in a block, C channels.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import cast

import numpy as np
import soundfile

from sottovoce.audio.encoded import Encoded
from sottovoce.audio.ffmpeg import read_ffmpeg
from sottovoce.audio.mp3_header import read_mp3_length
from sottovoce.audio.native_messages import NativeMessages
from sottovoce.audio.waveform import AudioFormat, Block
from sottovoce.errors import AudioDecodeError

logger = logging.getLogger(__name__)

_BLOCK_SAMPLES = 1 << 19  # over all channels: 2 MiB of float32, whatever the header claims; bigger is no faster
_BLOCK_S = 30  # s, so that a forged low rate cannot blow up one block's resampling
_SMALL_SAMPLES = 64  # per channel, read at a time where a block is damaged; most lengths of frames are its multiples
_LOSS_SHARE, _LOSS_S = 0.01, 1.0  # of a recording that may be lost at its damaged end (guess)
_TRUNCATION_S = 0.5  # s an mp3 may fall short of what its tag declares (guess: covers delay and padding)
_FAULTS = (soundfile.SoundFileError, ValueError, OverflowError)
_OPEN_ENDED_BYTES = 0x7FFF0000  # writers to a pipe leave 2 or 4 GiB as the size of the data
_PLACEHOLDER_BYTES = 1 << 28  # recorders leave other sizes, but none smaller (guess)
_ROUND_SIZES = (10**6, 1 << 20)  # of which placeholders are multiples, with or without the header (guess)
_LARGEST_HEADER = 256  # bytes of chunks before the samples that such a size may count (guess)
_FAR_MORE, _ROUND_FAR_MORE = 100, 2
"""How many times the bytes that are there a size promises if it is a placeholder: any size, and a round one (guess).
Half of an upload lacks as much, but is hardly ever the half of a round number of MB."""
_RIFF_CHUNK = re.compile(r"^RIFF : (\d+)", re.MULTILINE)
_DATA_CHUNK = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_BITS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "ULAW": 16,  # 8 bits that are decoded to 16: no coarse recording, the telephone's usual one
    "ALAW": 16,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "FLOAT": 32,
    "DOUBLE": 64,
}
_EXACT_IN_16_BITS = ("PCM_S8", "PCM_U8", "ULAW", "ALAW", "PCM_16")
"""Read as int16, which loses nothing: libsndfile's way to float32 takes 2 ms for 10 s of CD audio (EPYC, 2026)."""


def open_libsndfile(file: Encoded, messages: NativeMessages) -> soundfile.SoundFile | None:
    """Open encoded audio; return None if libsndfile does not know the container.

    Args:
        file: the container.
        messages: receives what libmpg123 prints; pass them to ``read_libsndfile``.
    """
    if file.descriptor is not None:
        os.lseek(file.descriptor, 0, os.SEEK_SET)  # libsndfile ignores the bytes before the position
    try:
        with messages.captured():
            return soundfile.SoundFile(file if file.descriptor is None else file.descriptor, closefd=False)
    except (soundfile.SoundFileError, ValueError, TypeError):  # the latter two: values of a forged header
        return None


def is_length_known(sound: soundfile.SoundFile) -> bool:
    """Whether the header declares a plausible number of samples.

    Writers to a pipe leave 0 in flac, which libsndfile then fails to read to the end; a recorder that was switched off
    leaves 0 in wav.
    """
    return 0 < int(sound.frames) < 1 << 62


def read_libsndfile(
    sound: soundfile.SoundFile,
    file: Encoded,
    messages: NativeMessages,
    *,
    source: str,
    start_s: float,
    duration_s: float | None,
) -> Iterator[tuple[AudioFormat, Block]]:
    """Decode the requested part block by block, and close ``sound``.

    For an mp3 without a Xing or Info tag, libsndfile estimates the length from the first frames and stops there. If
    smaller frames follow (speech, then silence), FFmpeg's libraries decode the rest. Where only the end is damaged, all
    before it is kept, and a warning is logged. So are the lines that libmpg123 prints about damage that it conceals.

    Args:
        sound: from ``open_libsndfile``.
        file: what it was opened from.
        messages: of opening it; they are logged with those of reading it.
        source: name for messages.
        start_s: first second wanted; reached by seeking.
        duration_s: seconds wanted; to the end when None.

    Yields:
        The format that the container declares, and (N, C) samples.

    Raises:
        AudioDecodeError: damaged or truncated, or ``start_s`` lies beyond the end.
    """
    start = round(start_s * sound.samplerate)
    wanted = None if duration_s is None else start + round(duration_s * sound.samplerate)
    with sound:
        _check_data_chunk(sound, source)
        audio_format, num_frames, position = _describe(sound), int(sound.frames), start
        stop = num_frames if wanted is None else min(wanted, num_frames)
        for block in _read_declared(sound, file, messages, start, stop, source=source):
            position += len(block)
            yield audio_format, block
        lacks_some = position >= num_frames and (wanted is None or position < wanted)
        reads_on = lacks_some and sound.format == "MP3" and _has_more(file) and not _has_exact_length(sound, file)
    for audio_format, block in _read_rest(file, position, wanted, source=source) if reads_on else ():
        position += len(block)
        yield audio_format, block
    if sound.format == "MP3" and (wanted is None or position < wanted):
        _check_mp3_length(file, position, audio_format.sampling_rate, source)
    if start >= num_frames and position == start:
        raise AudioDecodeError(source, f"start_s {start_s:g} lies beyond its end")


def _read_declared(
    sound: soundfile.SoundFile, file: Encoded, messages: NativeMessages, start: int, stop: int, *, source: str
) -> Iterator[Block]:
    """Decode samples that the header declares; raise if more of them are missing than a damaged last frame holds."""
    position, fault = start, None
    try:
        for block in _with_messages(_read_blocks(sound, start, stop), messages, is_mp3=_is_mp3(sound)):
            position += len(block)
            yield block
    except _FAULTS as error:
        fault = error
    finally:
        messages.log(source)
    if fault is not None and len(block := _read_before_damage(file, sound.channels, position, stop)):
        position += len(block)
        yield block
    if position >= stop or (fault is None and not _has_exact_length(sound, file)):
        return
    num_frames, rate = int(sound.frames), sound.samplerate
    num_lost, what = num_frames - position, "truncated" if fault is None else f"damaged {sound.format} data"
    file.find_fault()  # a disk that fails is no damage: the caller raises what it finds
    if position == start or num_lost > min(_LOSS_SHARE * num_frames, _LOSS_S * rate):
        raise AudioDecodeError(source, f"{what}: {position} of {num_frames} samples are there") from fault
    logger.warning("%s: %s; the last %.3f s are lost, all before is kept", source, what, num_lost / rate)


def _read_before_damage(file: Encoded, num_channels: int, start: int, stop: int) -> Block:
    """Decode again from ``start`` in small steps up to the damage: libsndfile gives nothing of a block that has one."""
    pieces: list[Block] = []
    file.seek(0)
    repeated = NativeMessages()  # the lines are known from the first time
    sound = open_libsndfile(file, repeated)
    if sound is not None:
        aligned = min(stop, start - start % -_SMALL_SAMPLES)
        with sound, suppress(*_FAULTS), repeated.captured() if _is_mp3(sound) else nullcontext():
            for first, last in ((start, aligned), (aligned, stop)):
                pieces.extend(_read_blocks(sound, first, last, largest=_SMALL_SAMPLES))
    return cast("Block", np.concatenate(pieces or [np.zeros((0, num_channels), np.float32)]))


def _with_messages(blocks: Iterator[Block], messages: NativeMessages, *, is_mp3: bool) -> Iterator[Block]:
    """Read blocks, and keep what libmpg123 prints meanwhile."""
    while True:
        with messages.captured() if is_mp3 else nullcontext():
            block = next(blocks, None)
        if block is None:
            return
        yield block


def _is_mp3(sound: soundfile.SoundFile) -> bool:
    return str(sound.format) == "MP3" or str(sound.subtype).startswith("MPEG")


def _has_more(file: Encoded) -> bool:
    """Whether bytes are left after libsndfile stopped: it reads an mp3 frame by frame, never ahead."""
    position = file.tell() if file.descriptor is None else os.lseek(file.descriptor, 0, os.SEEK_CUR)
    return position < file.num_bytes


def _read_rest(file: Encoded, start: int, stop: int | None, *, source: str) -> Iterator[tuple[AudioFormat, Block]]:
    """Decode the samples from ``start`` on with FFmpeg's libraries; both libraries count samples alike."""
    file.seek(0)
    position = 0
    for audio_format, block in read_ffmpeg(file, source=source, start_s=0.0, duration_s=None):
        rest = block[max(0, start - position) :]
        position += len(block)
        if len(rest):
            yield audio_format, rest
        if stop is not None and position >= stop:
            return


def _read_blocks(
    sound: soundfile.SoundFile, start: int, stop: int, *, largest: int = _BLOCK_SAMPLES
) -> Iterator[Block]:
    dtype = "int16" if sound.subtype in _EXACT_IN_16_BITS else "float32"
    num_block = max(1, min(largest, _BLOCK_SAMPLES // sound.channels, sound.samplerate * _BLOCK_S))
    position = start
    if 0 < start < stop:
        sound.seek(start)
    while position < stop:
        block: Block = sound.read(min(num_block, stop - position), dtype=dtype, always_2d=True)
        if not len(block):
            return
        position += len(block)
        yield block


def _describe(sound: soundfile.SoundFile) -> AudioFormat:
    container = "mp3" if sound.format == "MPEG" else sound.format.lower()
    return AudioFormat(
        sampling_rate=sound.samplerate,
        num_channels=sound.channels,
        bits=_BITS.get(sound.subtype),
        container=container,
    )


def _check_data_chunk(sound: soundfile.SoundFile, source: str) -> None:
    """Reject a truncated wav file; libsndfile corrects the size silently and only logs it."""
    match = _DATA_CHUNK.search(sound.extra_info)
    if match is None:
        return
    declared, present = int(match[1]), int(match[2])
    if present < declared < _OPEN_ENDED_BYTES and not _is_placeholder(sound, declared, present):
        raise AudioDecodeError(source, f"truncated: {present} of {declared} bytes of samples are there")


def _is_placeholder(sound: soundfile.SoundFile, declared: int, present: int) -> bool:
    """Whether a recorder that was switched off left a size that it meant to correct: the file's own agrees."""
    match = _RIFF_CHUNK.search(sound.extra_info)
    riff = int(match[1]) if match else 0
    agrees = riff == 0 or riff >= _OPEN_ENDED_BYTES or abs(riff - declared) <= _LARGEST_HEADER
    if not agrees or declared < _PLACEHOLDER_BYTES:
        return False
    is_round = any(  # within the 8 bytes that the file's own size leaves out
        min(size % unit, -size % unit) <= 8 for size in (riff or declared, declared) for unit in _ROUND_SIZES
    )
    return declared >= present * (_ROUND_FAR_MORE if is_round else _FAR_MORE)


def _has_exact_length(sound: soundfile.SoundFile, file: Encoded) -> bool:
    """Whether ``sound.frames`` is exact; it is an estimate for an mp3 if libsndfile found no Xing or Info tag."""
    if sound.format != "MP3":
        return not _is_mp3(sound)  # mp3 in wav: the header counts the encoder's delay
    length = read_mp3_length(file)
    if length is None or not length.is_xing:
        return False
    difference = abs(int(sound.frames) - length.num_samples)
    return difference <= _TRUNCATION_S * int(sound.samplerate)


def _check_mp3_length(file: Encoded, position: int, rate: int, source: str) -> None:
    """Reject an mp3 that ends before what its tag declares, which libsndfile does not always read."""
    length = read_mp3_length(file)
    if length is not None and position + _TRUNCATION_S * rate < length.num_samples:
        raise AudioDecodeError(source, f"truncated: {position} of {length.num_samples} samples are there")
