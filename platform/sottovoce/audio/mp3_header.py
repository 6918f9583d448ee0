"""Find the tag in which an mp3 file declares its length: after all ID3 tags, at its place in the first frame."""

from dataclasses import dataclass

from sottovoce.audio.encoded import Encoded

_ID3_BYTES = 10  # of an ID3v2 header, and of a footer
_ID3_FOOTER = 0x10  # flag
_MAX_TAGS = 64  # ID3v2 tags in a row (guess: forged files hold millions of empty ones)
_SEARCHED_BYTES = 65_536  # of padding or rubbish between the tags and the first frame (guess)
_FRAME_BYTES = 192  # that hold a frame's header, its side information and a tag's fields

_MPEG_1 = 3  # the version's two bits
_KBIT_PER_S = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
"""Bit rates of Layer III by their index: of MPEG 2 and 2.5, and of MPEG 1. Index 0 leaves the rate open."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # Hz, by version
_SIDE_BYTES = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}  # by MPEG 1, and mono
_HAS_FRAMES = 1  # flag of a Xing or Info tag
_VBRI_OFFSET = 36


@dataclass(frozen=True)
class _Frame:
    """What a frame's header says."""

    num_bytes: int | None
    """None where the header leaves the bit rate open."""
    num_samples: int
    tag_offsets: tuple[int, ...]
    """Where a Xing or Info tag may lie: behind the side information, and behind a checksum if there is one."""


@dataclass(frozen=True, kw_only=True)
class Mp3Length:
    """A declared length."""

    num_samples: int
    """Samples per channel, with the encoder's delay and padding."""
    is_xing: bool
    """Whether a Xing or Info tag declares it, which libsndfile reads; it does not read VBRI."""


def read_mp3_length(file: Encoded) -> Mp3Length | None:
    """Return the length that an mp3 file declares, or None if it declares none; moves the file's position."""
    start = _skip_id3(file)
    file.seek(start)
    head = file.read(_SEARCHED_BYTES + _FRAME_BYTES) or b""
    offset = head.find(b"\xff")
    while 0 <= offset < _SEARCHED_BYTES:
        frame = _parse_frame(head[offset : offset + 4])
        if frame is not None and _is_followed(file, start + offset, frame):
            return _read_tag(head[offset : offset + _FRAME_BYTES], frame)
        offset = head.find(b"\xff", offset + 1)
    return None


def _skip_id3(file: Encoded) -> int:
    """Return the first byte behind all ID3v2 tags."""
    position = 0
    for _ in range(_MAX_TAGS):
        file.seek(position)
        header = file.read(_ID3_BYTES) or b""
        if len(header) < _ID3_BYTES or header[:3] != b"ID3" or max(header[6:]) > 0x7F:
            return position
        num_bytes = sum(byte << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
        position += num_bytes + _ID3_BYTES * (2 if header[5] & _ID3_FOOTER else 1)
    return position


def _parse_frame(header: bytes) -> _Frame | None:
    """Return what the four bytes of a Layer III header say, or None if they are no such header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, index, rate_index = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version not in _RATES or index == 15 or rate_index == 3:
        return None
    is_mpeg_1, is_mono, has_checksum = version == _MPEG_1, header[3] >> 6 == 3, not header[1] & 1
    num_samples = 1_152 if is_mpeg_1 else 576
    bit_rate = 1_000 * _KBIT_PER_S[is_mpeg_1][index]
    num_bytes = num_samples // 8 * bit_rate // _RATES[version][rate_index] + (header[2] >> 1 & 1)
    tag = 4 + _SIDE_BYTES[is_mpeg_1, is_mono]
    return _Frame(num_bytes if bit_rate else None, num_samples, (tag, tag + 2) if has_checksum else (tag,))


def _is_followed(file: Encoded, start: int, frame: _Frame) -> bool:
    """Whether a frame follows, or the file ends: two bytes alone look like a header in any rubbish."""
    if frame.num_bytes is None or start + frame.num_bytes + 4 > file.num_bytes:
        return True
    file.seek(start + frame.num_bytes)
    return _parse_frame(file.read(4) or b"") is not None


def _read_tag(data: bytes, frame: _Frame) -> Mp3Length | None:
    """Return the length in the tag of the first frame, which holds no sound itself."""
    for offset in frame.tag_offsets:
        name, flags = data[offset : offset + 4], data[offset + 4 : offset + 8]
        if name in (b"Xing", b"Info") and len(flags) == 4 and flags[3] & _HAS_FRAMES:
            num_frames = int.from_bytes(data[offset + 8 : offset + 12], "big")
            return Mp3Length(num_samples=num_frames * frame.num_samples, is_xing=True) if num_frames else None
    if data[_VBRI_OFFSET : _VBRI_OFFSET + 4] == b"VBRI":
        num_frames = int.from_bytes(data[_VBRI_OFFSET + 14 : _VBRI_OFFSET + 18], "big")
        return Mp3Length(num_samples=num_frames * frame.num_samples, is_xing=False) if num_frames else None
    return None
