"""Split a window into segments at the timestamp tokens that the model generated.

Shapes: T tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise

from sottovoce.model.labels import TIMESTAMP_STEP_S, TokenKinds
from sottovoce.schema import TokenLogprob, WindowSegment

Tokens = tuple[int, ...]


def split_window(
    token_ids: Sequence[int],
    *,
    kinds: TokenKinds,
    decode_raw: Callable[[Tokens], str],
    duration_s: float,
    token_logprobs: Iterable[TokenLogprob] = (),
) -> tuple[tuple[WindowSegment, ...], float | None]:
    """Split a window's tokens at its timestamps, and return how far the window is transcribed for certain.

    Two timestamps in a row, as in ``<|2.34|><|2.34|>``, end one segment and start the next. Text after the last such
    pair that has no timestamp at its end is unfinished: the next window contains all of it. A single timestamp at the
    very end means that no speech follows. A window without such a pair is one segment.

    Args:
        token_ids: (T,) tokens after the prefix, end token excluded.
        kinds: which ids are text and which are times.
        decode_raw: decodes text tokens and keeps the leading space.
        duration_s: of the window's sound; no time lies beyond it.
        token_logprobs: of the text tokens, in order; empty if they were not requested.

    Returns:
        The segments with text, in order, whose times never decrease; and the start [s] of the unfinished rest, or None.

    Source: openai-whisper's transcribe.py, checked against it in test_window_segments. There a segment without a
    pair starts with the window; here it starts at its first timestamp.
    """
    ids = tuple(token_ids)
    is_time = kinds.are_times(ids).tolist()
    cuts = [index for index in range(1, len(ids)) if is_time[index - 1] and is_time[index]]
    is_finished = not cuts or is_time[-2:] == [False, True]
    pieces = [ids[first:last] for first, last in pairwise([0, *cuts, *([len(ids)] if is_finished else [])])]
    segments: list[WindowSegment] = []
    end_s = 0.0
    logprobs = iter(token_logprobs)
    for piece in pieces:
        start_s, end_s = _span(piece, kinds, after_s=end_s, duration_s=duration_s)
        words = kinds.text_of(piece)
        known = tuple(islice(logprobs, len(words)))  # also of blank pieces, so that the next piece gets its own
        text = decode_raw(words)
        if text.strip():
            segments.append(WindowSegment(start_s, end_s, text, piece, token_logprobs=known))
    heard_s = None if is_finished or end_s >= duration_s else end_s
    return tuple(segments), heard_s


def _span(piece: Tokens, kinds: TokenKinds, *, after_s: float, duration_s: float) -> tuple[float, float]:
    """Return the start and end of a segment; the previous segment and the window's end replace missing timestamps."""

    def time_s(token: int) -> float:
        return min(round((token - kinds.timestamps_from) * TIMESTAMP_STEP_S, 2), duration_s)

    is_time = kinds.are_times(piece).tolist()
    times = [time_s(token) for token, found in zip(piece, is_time, strict=True) if found]
    starts_with_time = is_time[:1] == [True]
    start_s = max(after_s, times[0]) if starts_with_time else after_s
    ends = times[1:] if starts_with_time and len(piece) > 1 else times
    return start_s, max(start_s, ends[-1] if ends else duration_s)
