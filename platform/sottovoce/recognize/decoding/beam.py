"""Beam search: several texts of a window are generated side by side, and the best finished one is kept.

Shapes: B windows, R rows, K beams, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.session import DecoderSession, Hypothesis, Logits, TokenIds, log_sums


@dataclass(frozen=True)
class BeamSettings:
    """Settings of the search in one window."""

    beam_size: int
    """Texts that continue at each step, K."""
    patience: float
    """Finished texts that end the search, in multiples of K; see Kasai et al. 2022."""
    limit: int
    """The most tokens, end token included."""

    @property
    def num_finished(self) -> int:
        """Finished texts that end the search."""
        return max(1, round(self.beam_size * self.patience))


@dataclass
class _Search:
    """The search in one window: open texts, best first, and finished texts."""

    settings: BeamSettings
    open: list[Hypothesis]
    finished: list[Hypothesis] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether the search continues."""
        num_written = len(self.open[0].token_ids) if self.open else self.settings.limit
        return num_written < self.settings.limit and len(self.finished) < self.settings.num_finished

    def take(self, candidates: Sequence[tuple[int, Hypothesis]], *, end_id: int) -> list[int]:
        """Keep the K likeliest open texts, and the finished ones that are likelier than the last of them.

        Args:
            candidates: each with the row it continues.
            end_id: the id of the end token.

        Returns:
            The rows that the open texts continue.
        """
        self.open, sources = [], []
        for source, hypothesis in sorted(candidates, key=lambda one: one[1].sum_logprob, reverse=True):
            if len(self.open) == self.settings.beam_size:
                break
            if hypothesis.token_ids[-1] != end_id:
                self.open.append(hypothesis)
                sources.append(source)
            elif len(self.finished) < self.settings.num_finished:
                self.finished.append(Hypothesis(hypothesis.token_ids[:-1], hypothesis.logprobs))
        return sources

    def result(self) -> list[Hypothesis]:
        """Return the finished texts, filled up to K with the likeliest open ones."""
        missing = max(0, self.settings.beam_size - len(self.finished))
        return self.finished + self.open[:missing]


def search_beams(
    session: DecoderSession, logits: Logits, *, rules: TokenRules, settings: Sequence[BeamSettings]
) -> Iterator[dict[int, list[Hypothesis]]]:
    """Search the texts of each window, one token further in a step; a finished window leaves the batch.

    Args:
        session: has read the prefixes.
        logits: (B, V) of the first token.
        rules: which tokens are allowed.
        settings: B.

    Yields:
        After each step, the windows that are finished with it, each with the texts to choose from, at least one.

    Source: openai-whisper 20250625, BeamSearchDecoder, checked against it in test_openai_whisper.
    """
    searches = [_Search(one, [Hypothesis((), ())]) for one in settings]
    index_of = {id(search): index for index, search in enumerate(searches)}
    running = [search for search in searches if search.goes_on]
    sources: list[int] = [row for row, search in enumerate(searches) if search.goes_on]
    logits = logits[sources]
    yield {index: search.result() for index, search in enumerate(searches) if not search.goes_on}
    while running:
        written = _written(running)
        taken = _step(running, rules.apply(logits, written), end_id=rules.vocabulary.end_id)
        sources = [
            sources[row] if not written.shape[1] else row
            for search, rows in zip(running, taken, strict=True)
            if search.goes_on
            for row in rows
        ]
        yield {index_of[id(search)]: search.result() for search in running if not search.goes_on}
        running = [search for search in running if search.goes_on]
        if running:
            session.reorder(sources)
            logits = session.advance(np.array([one.token_ids[-1] for search in running for one in search.open]))


def _written(searches: Sequence[_Search]) -> TokenIds:
    """Return the tokens of all open texts, (R, T)."""
    return np.array([one.token_ids for search in searches for one in search.open], dtype=np.int64)


def _step(searches: Sequence[_Search], logits: Logits, *, end_id: int) -> list[list[int]]:
    """Extend every text by the K + 1 likeliest tokens of (R, V); return the rows that each window continues."""
    sums = log_sums(logits)
    row = 0
    taken: list[list[int]] = []
    for search in searches:
        candidates: list[tuple[int, Hypothesis]] = []
        for hypothesis in search.open:
            for token in _likeliest_tokens(logits[row], search.settings.beam_size + 1):
                logprob = float(logits[row, token]) - float(sums[row])
                extended = Hypothesis((*hypothesis.token_ids, token), (*hypothesis.logprobs, logprob))
                candidates.append((row, extended))
            row += 1
        taken.append(search.take(candidates, end_id=end_id))
    return taken


def _likeliest_tokens(logits: Logits, count: int) -> list[int]:
    """Return the allowed tokens with the highest of (V,) logits, best first."""
    best = np.sort(np.argpartition(logits, -count)[-count:])  # of equals the lower id comes first
    ordered = best[np.argsort(-logits[best], kind="stable")]
    return [int(token) for token in ordered if np.isfinite(logits[token])]
