"""Decode one batch of encoded windows: languages, prefixes, texts and their scores.

Shapes: B windows, T tokens.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.attempt import Attempt, SpokenLanguage, WindowDecoder
from sottovoce.recognize.decoding.fallback import decode_with_fallback
from sottovoce.recognize.decoding.plausibility import compression_ratio, is_silence
from sottovoce.schema import DecodeOptions, TokenLogprob, WindowResult
from sottovoce.words.segments import split_window


def find_languages(
    decoder: WindowDecoder, options: Sequence[DecodeOptions], *, known: Sequence[str]
) -> list[SpokenLanguage]:
    """Return the language of each window: the one in its options, or the likeliest one.

    Args:
        decoder: of the encoded windows.
        options: of each window.
        known: languages the model knows; among one there is nothing to detect, as in English-only models.
    """
    codes = [option.language for option in options]
    given = [SpokenLanguage(code) for code in codes if code is not None]
    if len(given) == len(codes):
        return given
    detected = decoder.detect_languages() if len(known) > 1 else [SpokenLanguage(known[0], 1.0)] * len(codes)
    return [found if code is None else SpokenLanguage(code) for code, found in zip(codes, detected, strict=True)]


def decode_batch(
    decoder: WindowDecoder,
    options: Sequence[DecodeOptions],
    *,
    vocabulary: Vocabulary,
    durations_s: Sequence[float],
    max_rows: int,
) -> Iterator[dict[int, WindowResult]]:
    """Decode one batch step by step, and detect languages that are not given.

    Args:
        decoder: of the encoded batch.
        options: B, equal in ``timestamps`` and in the number of tokens before the transcript.
        vocabulary: the engine's.
        durations_s: B lengths of the windows' audio.
        max_rows: texts generated at the same time if windows have several.

    Yields:
        After each step, the results of the windows that ended with it, by their row, without words. A window skipped
        as silence has no text.

    Raises:
        LanguageError: a language the model does not know.
    """
    languages = find_languages(decoder, options, known=vocabulary.languages)
    prefix = np.array(
        [
            vocabulary.previous(option) + vocabulary.prefix(language.code, option)
            for language, option in zip(languages, options, strict=True)
        ],
        dtype=np.int64,
    )
    for ended in decode_with_fallback(decoder, prefix, options, vocabulary=vocabulary, max_rows=max_rows):
        yield {
            row: _result(attempt, options[row], languages[row], vocabulary=vocabulary, duration_s=durations_s[row])
            for row, attempt in ended.items()
        }


def _result(
    attempt: Attempt, option: DecodeOptions, language: SpokenLanguage, *, vocabulary: Vocabulary, duration_s: float
) -> WindowResult:
    """Build the result of one window."""
    hypothesis = attempt.hypothesis
    skipped = is_silence(option, avg_logprob=hypothesis.avg_logprob, no_speech_prob=attempt.no_speech_prob)
    token_ids = () if skipped else hypothesis.token_ids
    text = vocabulary.text(token_ids)
    logprobs = _token_logprobs(token_ids, hypothesis.logprobs, vocabulary) if option.token_logprobs else ()
    segments, heard_s = split_window(
        token_ids,
        kinds=vocabulary.kinds,
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
    """Return the text tokens with their log-probabilities; timestamps and the end token are not text."""
    return tuple(
        TokenLogprob(text=utf8.decode("utf-8", errors="replace"), logprob=logprob, utf8=utf8)
        for token, logprob, is_text in zip(  # the log-probability of the end token may follow
            token_ids, logprobs, vocabulary.kinds.are_text(token_ids), strict=False
        )
        if is_text
        for utf8 in (vocabulary.utf8(token),)
    )
