"""Whether a text is kept: Whisper's rules against repetition, unlikely words and silence.

The gateway applies them, too, so this module imports no engine.
"""

import zlib

from sottovoce.schema import DecodeOptions


def compression_ratio(text: str) -> float:
    """Return how much a text repeats itself: its UTF-8 bytes over the same bytes compressed with zlib."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


def is_plausible(options: DecodeOptions, *, text: str, avg_logprob: float, no_speech_prob: float) -> bool:
    """Whether a text is kept; otherwise the next temperature is tried.

    A text that repeats itself or is unlikely on average is not kept, but an unlikely one is if silence is likely.
    """
    repeats = (
        options.compression_ratio_threshold is not None
        and compression_ratio(text) > options.compression_ratio_threshold
    )
    unlikely = options.logprob_threshold is not None and avg_logprob < options.logprob_threshold
    if unlikely and options.no_speech_threshold is not None and no_speech_prob > options.no_speech_threshold:
        return True
    return not repeats and not unlikely


def is_silence(options: DecodeOptions, *, avg_logprob: float, no_speech_prob: float) -> bool:
    """Whether a window is skipped: silence is likely, and its text is not likely enough to outweigh that."""
    if options.no_speech_threshold is None or no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or avg_logprob <= options.logprob_threshold
