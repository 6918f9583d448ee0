"""Whether what was written can be what was said: Whisper's thresholds.

Source of all: Radford et al. 2022, section 4.5, in the form of openai-whisper 20250625, decode_with_fallback and the
check after it, checked against it in test_openai_whisper.
"""

import zlib

from sottovoce.schema import DecodeOptions


def compression_ratio(text: str) -> float:
    """Measure how much a text repeats itself: its UTF-8 bytes over the same bytes compressed with zlib."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


def is_plausible(options: DecodeOptions, *, text: str, avg_logprob: float, no_speech_prob: float) -> bool:
    """Tell whether a text is kept; otherwise the next temperature is tried.

    Not kept is one that repeats itself or is unlikely on average; but an unlikely one is where silence is likely.
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
    """Tell whether a window is skipped: no speech is likely, and its text is not likely enough to prove otherwise."""
    if options.no_speech_threshold is None or no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or avg_logprob <= options.logprob_threshold
