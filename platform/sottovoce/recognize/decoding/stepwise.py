"""Decode windows token by token, with an engine that computes logits.

Shapes: B windows, R rows, T tokens, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.attempt import Attempt, SpokenLanguage, is_search, num_texts
from sottovoce.recognize.decoding.beam import BeamSettings, search_beams
from sottovoce.recognize.decoding.loops import IsLoop, loop_rule
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


class StepwiseDecoder:
    """The ``WindowDecoder`` of a session that returns logits."""

    def __init__(self, session: DecoderSession, vocabulary: Vocabulary, *, num_windows: int) -> None:
        """Wrap a session of ``num_windows`` encoded windows."""
        self._session = session
        self._vocabulary = vocabulary
        self._num_windows = num_windows
        self.num_generated = 0

    def detect_languages(self) -> list[SpokenLanguage]:
        """Detect the likeliest language of each window.

        Source: openai-whisper 20250625, detect_language: the logits after the start token alone, without a prompt.
        """
        logits = self._session.start(np.full((self._num_windows, 1), self._vocabulary.start_id, dtype=np.int64))
        among = logits[:, 0, self._vocabulary.language_ids].astype(np.float64)
        weights = np.exp(among - among.max(axis=1, keepdims=True))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        best = probabilities.argmax(axis=1)
        return [
            SpokenLanguage(self._vocabulary.languages[index], float(row[index]))
            for index, row in zip(best, probabilities, strict=True)
        ]

    def attempt(
        self,
        rows: Sequence[int],
        prefix: TokenIds,
        options: Sequence[DecodeOptions],
        number: int,
        *,
        cuts_loops: bool = True,
    ) -> Iterator[dict[int, Attempt]]:
        """Decode some of the windows, one token of each in a step; see ``WindowDecoder``."""
        session, vocabulary = self._session, self._vocabulary
        if len(rows) != self._num_windows:
            session = session.select(rows)
        if is_search(options[0], number) or any(one.temperatures[number] > 0.0 for one in options):
            session = without_assistant(session)
        num_read = prefix.shape[1]
        start = int(np.flatnonzero(prefix[0] == vocabulary.start_id)[-1])  # a prompt may precede it
        logits = session.start(prefix, (start, num_read - 1))
        silence = np.exp(log_probabilities(logits[:, 0], np.full(len(prefix), vocabulary.no_speech_id)))
        rules = TokenRules.of(vocabulary, num_tokens=logits.shape[2], timestamps=options[0].timestamps)
        # openai-whisper allows one more token in a full decoder, which no decoder position can read
        limits = [max(0, min(one.max_new_tokens, MAX_LABEL_TOKENS - num_read)) for one in options]
        if is_search(options[0], number):
            texts = search_beams(
                session,
                logits[:, 1],
                rules=rules,
                settings=[
                    BeamSettings(one.beam_size, one.patience, limit) for one, limit in zip(options, limits, strict=True)
                ],
            )
        else:
            loops = [loop_rule(one, number, vocabulary) if cuts_loops else None for one in options]
            texts = _sample(session, logits[:, 1], options, number, rules=rules, limits=limits, loops=loops)
        for ended in texts:
            self.num_generated += 1
            yield {
                index: Attempt(
                    likeliest(found, length_penalty=options[index].length_penalty),
                    float(silence[index]),
                    options[index].temperatures[number],
                )
                for index, found in ended.items()
            }


def _sample(
    session: DecoderSession,
    logits: Logits,
    options: Sequence[DecodeOptions],
    number: int,
    *,
    rules: TokenRules,
    limits: Sequence[int],
    loops: Sequence[IsLoop | None],
) -> Iterator[dict[int, list[Hypothesis]]]:
    """Sample the texts of each window, with random numbers from its seed, the attempt and the text's index."""
    num_samples = num_texts(options[0], number)
    samplings = [
        Sampling(limit, one.temperatures[number], np.random.default_rng((one.seed, number, text)), is_loop)
        for one, limit, is_loop in zip(options, limits, loops, strict=True)
        for text in range(num_samples)
    ]
    if num_samples > 1:
        rows = np.repeat(np.arange(len(options)), num_samples)
        session.reorder(rows.tolist())
        logits = logits[rows]
    samples: dict[int, dict[int, Hypothesis]] = defaultdict(dict)  # by window, then by text
    for ended in sample_texts(session, logits, rules=rules, samplings=samplings):
        for row, hypothesis in ended.items():
            samples[row // num_samples][row % num_samples] = hypothesis
        complete = {row // num_samples for row in ended if len(samples[row // num_samples]) == num_samples}
        yield {window: [samples[window][text] for text in range(num_samples)] for window in complete}
