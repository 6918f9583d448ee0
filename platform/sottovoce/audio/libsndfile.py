"""Blocks of samples from the containers libsndfile reads: wav, flac, mp3, aiff, caf, au and more.

Shapes: N samples per channel in a block, C channels.
"""

import os
import re
from collections.abc import Iterator

import soundfile

from sottovoce.audio.encoded import Encoded
from sottovoce.audio.ffmpeg import read_ffmpeg
from sottovoce.audio.waveform import AudioFormat, Block
from sottovoce.errors import AudioDecodeError

_BLOCK_SAMPLES = 1 << 19  # over all channels: 2 MiB of float32, whatever the header claims; bigger is no faster
_BLOCK_S = 30  # s, so that a forged low rate cannot blow up one block's resampling
_OPEN_ENDED_BYTES = 0x7FFF0000  # writers to a pipe leave 2 or 4 GiB as the size of the data
_DATA_CHUNK = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_BITS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "ULAW": 8,
    "ALAW": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "FLOAT": 32,
    "DOUBLE": 64,
}
_EXACT_IN_16_BITS = ("PCM_S8", "PCM_U8", "ULAW", "ALAW", "PCM_16")
"""Read as int16, which loses nothing: libsndfile's way to float32 takes 2 ms for 10 s of CD audio (EPYC, 2026)."""
_TAG_BYTES = 65_536  # where an mp3's Xing or Info tag is looked for (guess: behind no larger ID3 tag)


def open_libsndfile(file: Encoded) -> soundfile.SoundFile | None:
    """Open encoded audio; return None if libsndfile does not know the container."""
    if file.descriptor is not None:
        os.lseek(file.descriptor, 0, os.SEEK_SET)  # libsndfile ignores the bytes before the position
    try:
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
    sound: soundfile.SoundFile, file: Encoded, *, source: str, start_s: float, duration_s: float | None
) -> Iterator[tuple[AudioFormat, Block]]:
    """Decode the requested part block by block, and close ``sound``.

    For an mp3 without a Xing or Info tag, libsndfile estimates the length from the first frames and stops there. If
    smaller frames follow (speech, then silence), FFmpeg's libraries decode the rest.

    Args:
        sound: from ``open_libsndfile``.
        file: what it was opened from.
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
        try:
            for block in _read_blocks(sound, start, stop):
                position += len(block)
                yield audio_format, block
        except (soundfile.SoundFileError, ValueError, OverflowError) as error:
            raise AudioDecodeError(source, f"damaged {sound.format} data") from error
        lacks_some = position >= num_frames and (wanted is None or position < wanted)
        reads_on = lacks_some and sound.format == "MP3" and _has_more(file) and not _has_exact_length(sound, file)
        if position < stop and _has_exact_length(sound, file):
            raise AudioDecodeError(source, f"truncated: {position} of {num_frames} samples are there")
    for audio_format, block in _read_rest(file, position, wanted, source=source) if reads_on else ():
        position += len(block)
        yield audio_format, block
    if start >= num_frames and position == start:
        raise AudioDecodeError(source, f"start_s {start_s:g} lies beyond its end")


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


def _read_blocks(sound: soundfile.SoundFile, start: int, stop: int) -> Iterator[Block]:
    dtype = "int16" if sound.subtype in _EXACT_IN_16_BITS else "float32"
    num_block = max(1, min(_BLOCK_SAMPLES // sound.channels, sound.samplerate * _BLOCK_S))
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
    if present < declared < _OPEN_ENDED_BYTES:
        raise AudioDecodeError(source, f"truncated: {present} of {declared} bytes of samples are there")


def _has_exact_length(sound: soundfile.SoundFile, file: Encoded) -> bool:
    """Whether ``sound.frames`` is exact; it is an estimate for an mp3 without a Xing or Info tag."""
    if sound.format != "MP3":
        return not sound.subtype.startswith("MPEG")  # mp3 in wav: the header counts the encoder's delay
    file.seek(0)
    head = file.read(_TAG_BYTES) or b""
    return b"Xing" in head or b"Info" in head
