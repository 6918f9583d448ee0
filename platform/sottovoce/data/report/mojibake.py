"""Find UTF-8 that somebody read as Windows-1252 or Latin-1: "CafÃ©" for "Café"."""

import re
from functools import cache

_FOLLOWING = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0)) + "\u0080-\u009f"
"""What a byte of a UTF-8 sequence, after its first, looks like."""

_CHARACTER = f"[\u00c2-\u00df][{_FOLLOWING}]|[\u00e0-\u00ef][{_FOLLOWING}]{{2}}|[\u00f0-\u00f4][{_FOLLOWING}]{{3}}"
_ONE, _SEVERAL = re.compile(_CHARACTER), re.compile(f"(?:{_CHARACTER})+")
_CLOSING = frozenset("\u00bb\u2013\u2014\u2019\u201c\u201d\u2026\u203a")  # » – — ’ “ ” … ›: they may follow a capital


def find_mojibake(text: str) -> list[str]:
    """Give what stands for one character each, where taking the wrong decoding back gives likely characters."""
    if text.isascii():
        return []
    return [part for sequence in _SEVERAL.findall(text) if _is_mojibake(sequence) for part in _ONE.findall(sequence)]


def repair(sequence: str) -> str:
    """Take the wrong decoding back.

    Raises:
        UnicodeDecodeError: it is no UTF-8, so nothing went wrong.
    """
    return bytes(ord(c) if ord(c) < 0x100 else c.encode("cp1252")[0] for c in sequence).decode("utf-8")


@cache
def _is_mojibake(sequence: str) -> bool:
    """Look at what the sequence turns into.

    Proper writing has such sequences too: a capital before a quotation mark, French letters before a no-break space
    and a guillemet. Those turn into one character of a distant script, or end in closing punctuation.
    """
    try:
        repaired = repair(sequence)
    except UnicodeDecodeError:
        return False
    if len(repaired) > 1:
        return True
    if len(sequence) == 2 and sequence[1] in _CLOSING:
        return False
    is_european = repaired <= "\u017f"
    is_punctuation = "\u2000" <= repaired <= "\u214f"  # with currency and letter-like signs
    is_emoji = repaired >= "\U0001f000"
    return is_european or is_punctuation or is_emoji
