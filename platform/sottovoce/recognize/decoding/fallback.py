"""Decode windows with temperature fallback: an implausible text is generated again at the next temperature.

Shapes: B windows, R rows, T tokens, V vocabulary.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.beam import BeamSettings, search_beams
from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.sample import Sampling, sample_texts
from sottovoce.recognize.decoding.session import (
    DecoderSession,
    Hypothesis,
    Logits,
    TokenIds,
    likeliest,
    log_probabilities,
)
from sottovoce.recognize.speculative import without_assistant
from sottovoce.schema import MAX_LABEL_TOKENS, DecodeOptions


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


@dataclass(frozen=True)
class Attempt:
    """The text of one window at one temperature."""

    hypothesis: Hypothesis
    no_speech_prob: float
    temperature: float


def decode_with_fallback(
    session: DecoderSession,
    prefix: TokenIds,
    options: Sequence[DecodeOptions],
    *,
    vocabulary: Vocabulary,
    max_rows: int,
) -> list[Attempt]:
    """Decode each window at its first temperature, and implausible ones at the next, until a text is plausible.

    Args:
        session: the encoded batch.
        prefix: (B, T) tokens before the transcript.
        options: B, equal in ``timestamps``.
        vocabulary: the engine's.
        max_rows: texts generated at the same time if windows have several.

    Returns:
        B attempts: the first plausible one of each window, else its last.
    """
    kept: dict[int, Attempt] = {}
    pending = list(range(len(options)))
    for number in count():
        for rows in _groups(pending, options, number, max_rows=max_rows):
            part = session if len(rows) == len(options) else session.select(rows)
            found = _attempt(part, prefix[rows], [options[row] for row in rows], number, vocabulary=vocabulary)
            kept.update(zip(rows, found, strict=True))
        pending = [
            row
            for row in pending
            if number + 1 < len(options[row].temperatures) and not _is_kept(kept[row], options[row], vocabulary)
        ]
        if not pending:
            break
    return [kept[row] for row in range(len(options))]


def _is_kept(attempt: Attempt, options: DecodeOptions, vocabulary: Vocabulary) -> bool:
    return is_plausible(
        options,
        text=vocabulary.text(attempt.hypothesis.token_ids),
        avg_logprob=attempt.hypothesis.avg_logprob,
        no_speech_prob=attempt.no_speech_prob,
    )


def _groups(
    pending: Sequence[int], options: Sequence[DecodeOptions], number: int, *, max_rows: int
) -> Iterator[list[int]]:
    """Yield the windows of each call: all searched or all sampled, with equally many texts."""
    groups: dict[tuple[bool, int], list[int]] = defaultdict(list)
    for row in pending:
        is_search = _is_search(options[row], number)
        groups[is_search, options[row].beam_size if is_search else _num_samples(options[row], number)].append(row)
    for (_, num_texts), rows in groups.items():
        size = len(rows) if num_texts == 1 else max(1, max_rows // num_texts)
        yield from (rows[first : first + size] for first in range(0, len(rows), size))


def _is_search(options: DecodeOptions, number: int) -> bool:
    return options.temperatures[number] == 0.0 and options.beam_size > 1


def _num_samples(options: DecodeOptions, number: int) -> int:
    return max(1, options.best_of) if options.temperatures[number] > 0.0 else 1


def _attempt(
    session: DecoderSession,
    prefix: TokenIds,
    options: Sequence[DecodeOptions],
    number: int,
    *,
    vocabulary: Vocabulary,
) -> list[Attempt]:
    """Decode the windows of one group, each at its temperature ``number``."""
    if _is_search(options[0], number) or any(one.temperatures[number] > 0.0 for one in options):
        session = without_assistant(session)
    num_read = prefix.shape[1]
    start = int(np.flatnonzero(prefix[0] == vocabulary.start_id)[-1])  # a prompt may precede it
    logits = session.start(prefix, (start, num_read - 1))
    silence = np.exp(log_probabilities(logits[:, 0], np.full(len(prefix), vocabulary.no_speech_id)))
    rules = TokenRules.of(vocabulary, num_tokens=logits.shape[2], timestamps=options[0].timestamps)
    # openai-whisper allows one more token in a full decoder, which no decoder position can read
    limits = [max(0, min(one.max_new_tokens, MAX_LABEL_TOKENS - num_read)) for one in options]
    if _is_search(options[0], number):
        texts = search_beams(
            session,
            logits[:, 1],
            rules=rules,
            settings=[
                BeamSettings(one.beam_size, one.patience, limit) for one, limit in zip(options, limits, strict=True)
            ],
        )
    else:
        texts = _sample(session, logits[:, 1], options, number, rules=rules, limits=limits)
    return [
        Attempt(likeliest(found, length_penalty=one.length_penalty), float(quiet), one.temperatures[number])
        for found, quiet, one in zip(texts, silence, options, strict=True)
    ]


def _sample(
    session: DecoderSession,
    logits: Logits,
    options: Sequence[DecodeOptions],
    number: int,
    *,
    rules: TokenRules,
    limits: Sequence[int],
) -> list[list[Hypothesis]]:
    """Sample the texts of each window, with random numbers from its seed, the attempt and the text's index."""
    num_samples = _num_samples(options[0], number)
    samplings = [
        Sampling(limit, one.temperatures[number], np.random.default_rng((one.seed, number, text)))
        for one, limit in zip(options, limits, strict=True)
        for text in range(num_samples)
    ]
    if num_samples > 1:
        rows = np.repeat(np.arange(len(options)), num_samples)
        session.reorder(rows.tolist())
        logits = logits[rows]
    texts = sample_texts(session, logits, rules=rules, samplings=samplings)
    return [texts[first : first + num_samples] for first in range(0, len(texts), num_samples)]
