"""One batch of encoded windows to results: languages, prefixes, texts, and what is known of them.

Shapes: B windows, T tokens.
"""

from collections.abc import Sequence

import numpy as np

from sottovoce.recognize.decoding.attempts import Attempt, decode_with_fallback
from sottovoce.recognize.decoding.language import SpokenLanguage, find_languages
from sottovoce.recognize.decoding.plausibility import compression_ratio, is_silence
from sottovoce.recognize.decoding.session import DecoderSession
from sottovoce.recognize.vocabulary import Vocabulary
from sottovoce.recognize.window_segments import split_window
from sottovoce.schema import DecodeOptions, TokenLogprob, WindowResult


def decode_batch(
    session: DecoderSession,
    options: Sequence[DecodeOptions],
    *,
    vocabulary: Vocabulary,
    durations_s: Sequence[float],
    max_rows: int,
) -> list[WindowResult]:
    """Decode one batch, naming languages where none is given.

    Args:
        session: the encoded batch.
        options: B, alike in ``timestamps`` and in the number of tokens before the transcript.
        vocabulary: of the engine.
        durations_s: B, of the windows' sound.
        max_rows: texts written at the same time, where windows have several.

    Returns:
        B results, without words; a window that is skipped as silence has no text.

    Raises:
        LanguageError: a language the model does not know.
    """
    languages = find_languages(session, vocabulary, options)
    prefix = np.array(
        [
            vocabulary.previous(option) + vocabulary.prefix(language.code, option)
            for language, option in zip(languages, options, strict=True)
        ],
        dtype=np.int64,
    )
    attempts = decode_with_fallback(session, prefix, options, vocabulary=vocabulary, max_rows=max_rows)
    return [
        _result(attempt, option, language, vocabulary=vocabulary, duration_s=duration_s)
        for attempt, option, language, duration_s in zip(attempts, options, languages, durations_s, strict=True)
    ]


def _result(
    attempt: Attempt, option: DecodeOptions, language: SpokenLanguage, *, vocabulary: Vocabulary, duration_s: float
) -> WindowResult:
    """Say what is known of a window's text."""
    hypothesis = attempt.hypothesis
    skipped = is_silence(option, avg_logprob=hypothesis.avg_logprob, no_speech_prob=attempt.no_speech_prob)
    token_ids = () if skipped else hypothesis.token_ids
    text = vocabulary.text(token_ids)
    logprobs = _token_logprobs(token_ids, hypothesis.logprobs, vocabulary) if option.token_logprobs else ()
    segments, heard_s = split_window(
        token_ids,
        timestamps_from=vocabulary.timestamps_from,
        decode_raw=vocabulary.raw_text,
        duration_s=duration_s,
        token_logprobs=logprobs,
    )
    return WindowResult(
        text=text,
        token_ids=token_ids,
        language=language.code,
        language_probability=language.probability,
        avg_logprob=hypothesis.avg_logprob,
        no_speech_prob=attempt.no_speech_prob,
        temperature=attempt.temperature,
        compression_ratio=compression_ratio(text),
        segments=segments,
        heard_s=heard_s,
        token_logprobs=logprobs,
    )


def _token_logprobs(
    token_ids: Sequence[int], logprobs: Sequence[float], vocabulary: Vocabulary
) -> tuple[TokenLogprob, ...]:
    """Give the tokens of text with their log-probabilities; times and the end token are no text."""
    return tuple(
        TokenLogprob(text=utf8.decode("utf-8", errors="replace"), logprob=logprob, utf8=utf8)
        for token, logprob in zip(token_ids, logprobs, strict=False)  # the end token's may come after
        if token < vocabulary.end_id
        for utf8 in (vocabulary.utf8(token),)
    )
