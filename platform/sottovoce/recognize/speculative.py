"""Speculative decoding: a small assistant drafts a few tokens, and the large model reads them all at once.

The session lies between the decoding loop and the model. It reads the drafted tokens together with the loop's token,
and while the loop chooses the drafted tokens, their logits are available already. The loop chooses by its own rules, so
the text is the model's own, token for token; only the time depends on the drafts. Reading several tokens at once rounds
differently from reading them one by one, in the seventh digit in float32: of two tokens that close, either may be
chosen.

A batch runs in lock step: if the token of one window was not drafted, all windows read again from there. So the gain is
largest for one window at a time.

Source: Leviathan, Kalman and Matias 2023, for greedy decoding, where a drafted token is right or wrong. The number of
drafted tokens follows transformers' heuristic schedule.

Shapes: B windows, R rows, T tokens, V vocabulary, K drafted tokens.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import CheckpointError
from sottovoce.model.labels import TokenKinds
from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.session import DecoderSession, Logits, TokenIds
from sottovoce.schema import FRAMES_PER_SECOND, MAX_LABEL_TOKENS
from sottovoce.words.word_times import AttentionSource

if TYPE_CHECKING:  # decoding imports this module, also in a replica that serves no torch
    from sottovoce.model.checkpoint import Checkpoint

_FIRST_DRAFTED = 5  # transformers' num_assistant_tokens before 4.57
_MORE, _FEWER = 2, 1  # its steps: more if all drafted tokens were right, fewer if one was not


class RewindableSession(DecoderSession, AttentionSource, Protocol):
    """A session that reads several tokens at once and can drop the last ones."""

    def extend(self, token_ids: TokenIds) -> Logits:
        """Read more tokens for each row, (R, T), and return (R, T, V)."""

    def crop(self, num_tokens: int) -> None:
        """Drop all but the first tokens from the cache; the prefix counts."""

    def select(self, rows: Sequence[int]) -> "RewindableSession":
        """Return a session of some of the windows, without encoding them again."""


OpenAssistant = Callable[[], RewindableSession]
"""Function that encodes the same windows with the assistant; called at the first use."""


def check_assistant(target: "Checkpoint", assistant: "Checkpoint") -> None:
    """Check that one model can assist another.

    Raises:
        CheckpointError: another tokenizer, other mel bins, or an encoder too short for the target's contexts.
    """
    longest = round(target.context.max_s * FRAMES_PER_SECOND / 2)
    reasons = {
        "its tokenizer is another": assistant.tokenizer.get_vocab() != target.tokenizer.get_vocab()
        or assistant.model.config.vocab_size != target.model.config.vocab_size,
        f"it reads {assistant.num_mel_bins} mel bins, not {target.num_mel_bins}": (
            assistant.num_mel_bins != target.num_mel_bins
        ),
        f"its encoder has {assistant.model.config.max_source_positions} positions, fewer than {longest}": (
            assistant.model.config.max_source_positions < longest
        ),
    }
    reason = next((reason for reason, is_met in reasons.items() if is_met), None)
    if reason is not None:
        raise CheckpointError(assistant.source, f"it cannot assist {target.source}: {reason}")


def without_assistant(session: DecoderSession) -> DecoderSession:
    """Return the model's own session, for sampling and beam search, whose tokens are seldom the drafted ones."""
    return session.target if isinstance(session, SpeculativeSession) else session


class SpeculativeSession:
    """A model's session that computes the next logits ahead of time."""

    def __init__(
        self,
        target: RewindableSession,
        open_assistant: OpenAssistant,
        *,
        vocabulary: Vocabulary,
        num_drafted: int = _FIRST_DRAFTED,
    ) -> None:
        """Combine a session with an assistant.

        Args:
            target: the model's own session.
            open_assistant: opens the assistant's session of the same windows.
            vocabulary: shared by both models.
            num_drafted: tokens drafted at first; the number then follows how many were right.
        """
        self.target = target
        self._drafter = _Drafter(open_assistant, vocabulary)
        self._open_assistant, self._vocabulary = open_assistant, vocabulary
        self._num_drafted = num_drafted
        self._prefix_length = 0
        self._written = self._drafted = np.zeros((0, 0), dtype=np.int64)
        self._logits: Logits = np.zeros(
            (0, 0, 0), dtype=np.float32
        )  # (R, K + 1, V): after the loop's token and each drafted one
        self._num_right = 0

    def start(self, prefix: TokenIds, positions: Sequence[int] | None = None) -> Logits:
        """Read a prefix with an empty cache and return (B, P, V); see ``DecoderSession``."""
        self._prefix_length = prefix.shape[1]
        self._written = self._drafted = np.zeros((len(prefix), 0), dtype=np.int64)
        self._num_right = 0
        self._drafter.start(prefix)
        return self.target.start(prefix, positions)

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each row, (R,), and return (R, V)."""
        index = self._num_right
        is_drafted = index < self._drafted.shape[1] and np.array_equal(self._drafted[:, index], token_ids)
        if not is_drafted:
            self._read_ahead(token_ids)
            index = -1
        self._num_right = index + 1
        self._written = np.column_stack([self._written, token_ids])
        logits: Logits = self._logits[:, index + 1]
        return logits

    def reorder(self, rows: Sequence[int]) -> None:
        """Continue from the caches and drafts of these rows."""
        self.target.reorder(rows)
        self._drafter.reorder(rows)
        self._written, self._drafted = self._written[list(rows)], self._drafted[list(rows)]
        if self._drafted.shape[1]:
            self._logits = self._logits[list(rows)]

    def select(self, rows: Sequence[int]) -> "SpeculativeSession":
        """Return a session of some of the windows."""
        return SpeculativeSession(
            self.target.select(rows),
            lambda: self._open_assistant().select(rows),
            vocabulary=self._vocabulary,
            num_drafted=self._num_drafted,
        )

    def attend(
        self, row: int, token_ids: list[int], kinds: TokenKinds
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read given tokens for one window; see ``AttentionSource``."""
        return self.target.attend(row, token_ids, kinds)

    @property
    def _num_read(self) -> int:
        """Tokens of prefix and text, without drafted ones."""
        return self._prefix_length + self._written.shape[1]

    def _read_ahead(self, token_ids: TokenIds) -> None:
        """Draft what follows a token, (R,), and read the token and the draft."""
        self._adapt()
        self.target.crop(self._num_read)
        room = MAX_LABEL_TOKENS - self._num_read - 1
        written = np.column_stack([self._written, token_ids])
        self._drafted = self._drafter.draft(written, num_drafted=min(self._num_drafted, room))
        self._logits = self.target.extend(np.column_stack([token_ids, self._drafted]))

    def _adapt(self) -> None:
        """Draft more tokens if all were right, else fewer."""
        if self._drafted.shape[1]:
            all_right = self._num_right == self._drafted.shape[1]
            self._num_drafted = self._num_drafted + _MORE if all_right else max(1, self._num_drafted - _FEWER)


class _Drafter:
    """The assistant: its session, the tokens it has read, and its greedy continuation."""

    def __init__(self, open_assistant: OpenAssistant, vocabulary: Vocabulary) -> None:
        self._open, self._vocabulary = open_assistant, vocabulary
        self._session: RewindableSession | None = None
        self._prefix = self._read = np.zeros((0, 0), dtype=np.int64)
        self._rows = np.zeros(0, dtype=np.int64)  # the window of each row
        self._is_started = False
        self._rules: TokenRules | None = None

    def start(self, prefix: TokenIds) -> None:
        """Start a new text. The prefix is read with the first draft."""
        self._prefix = prefix
        self._rules = None
        self._read = np.zeros((len(prefix), 0), dtype=np.int64)
        self._rows = np.arange(len(prefix))
        self._is_started = False

    def reorder(self, rows: Sequence[int]) -> None:
        """Continue from these rows."""
        if self._session is not None and self._is_started:
            self._session.reorder(rows)
        self._read, self._rows = self._read[list(rows)], self._rows[list(rows)]

    def draft(self, written: TokenIds, *, num_drafted: int) -> TokenIds:
        """Continue a text with the likeliest tokens until all rows have ended.

        Args:
            written: (R, T) all tokens after the prefix, at least one.
            num_drafted: the most tokens.

        Returns:
            (R, K).
        """
        num_written, end_id = written.shape[1], self._vocabulary.end_id
        if num_drafted < 1:
            return written[:, :0]
        logits = self._catch_up(written)
        if self._rules is None:
            self._rules = self._rules_of(num_tokens=logits.shape[1])
        while True:
            likeliest = self._rules.apply(logits, written).argmax(axis=1)
            chosen = np.where(written[:, -1] == end_id, end_id, likeliest)  # a row that has ended reads end tokens
            written = np.column_stack([written, chosen])
            if written.shape[1] == num_written + num_drafted or (chosen == end_id).all():
                return written[:, num_written:]
            logits = self._extend(chosen[:, None])

    def _catch_up(self, written: TokenIds) -> Logits:
        """Read the new tokens of a text and drop wrong drafts; return (R, V) of the next token."""
        if self._session is None:
            self._session = self._open()
        if not self._is_started:
            self._session.start(self._prefix, ())
            self._is_started = True
            if not np.array_equal(self._rows, np.arange(len(self._prefix))):
                self._session.reorder(self._rows.tolist())
        shared = min(self._read.shape[1], written.shape[1] - 1)
        is_same = (self._read[:, :shared] == written[:, :shared]).all(axis=0)
        num_same = shared if is_same.all() else int(is_same.argmin())
        self._read = self._read[:, :num_same]
        self._session.crop(self._prefix.shape[1] + num_same)
        return self._extend(written[:, num_same:])

    def _extend(self, token_ids: TokenIds) -> Logits:
        assert self._session is not None, "_catch_up opens it"
        self._read = np.column_stack([self._read, token_ids])
        logits: Logits = self._session.extend(token_ids)[:, -1]
        return logits

    def _rules_of(self, *, num_tokens: int) -> TokenRules:
        """Return the rules of the model itself: with timestamps unless the prefix excludes them."""
        no_timestamps = self._vocabulary.kinds.timestamps_from - 1
        return TokenRules.of(
            self._vocabulary, num_tokens=num_tokens, timestamps=int(self._prefix[0, -1]) != no_timestamps
        )
