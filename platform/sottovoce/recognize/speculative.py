"""Speculative decoding: a small model writes a few tokens ahead, and the large one reads them all at once.

The session stands between the decoding loop and the model: it reads the guesses together with the token it is given,
and as long as the loop goes on to choose what was guessed, the logits are there already. What the loop chooses, by
whatever rules, is its own affair, so the text is the model's own, token for token; only the time it takes depends on
the guesses. Reading several tokens at once rounds differently from reading one by one, in the seventh digit in
float32: where two tokens are that close, either may be chosen.

A batch goes in lock step: where one window's token was not guessed, all of them read anew from there. So the gain is
largest for one window at a time.

Source: Leviathan, Kalman and Matias 2023, for the greedy choice, where a guess is right or wrong; how many tokens are
guessed follows transformers' heuristic schedule.

Shapes: B windows, R rows, T tokens, V vocabulary, K guesses.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import CheckpointError
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.session import DecoderSession, Logits, TokenIds
from sottovoce.schema import FRAMES_PER_SECOND, MAX_LABEL_TOKENS
from sottovoce.words.word_times import AttentionSource

_FIRST_GUESSES = 5  # transformers' num_assistant_tokens before 4.57
_MORE, _FEWER = 2, 1  # and its steps: up where all guesses were right, down where one was not


class RewindableSession(DecoderSession, AttentionSource, Protocol):
    """A session that reads several tokens at once and can forget the last ones."""

    def extend(self, token_ids: TokenIds) -> Logits:
        """Read more tokens for each row, (R, T). Gives (R, T, V)."""

    def crop(self, num_tokens: int) -> None:
        """Forget all but the first tokens read, prefix included."""

    def select(self, rows: Sequence[int]) -> "RewindableSession":
        """Give a session of some of the windows, which are not encoded again."""


OpenAssistant = Callable[[], RewindableSession]
"""Encode the same windows with the assistant; called when it is first needed."""


def check_assistant(target: Checkpoint, assistant: Checkpoint) -> None:
    """See that one model can guess for another.

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
    """Give the model's own session, where what comes next is drawn or searched and seldom what was guessed."""
    return session.target if isinstance(session, SpeculativeSession) else session


class SpeculativeSession:
    """A model's session whose next logits are there before they are asked for."""

    def __init__(
        self,
        target: RewindableSession,
        open_assistant: OpenAssistant,
        *,
        vocabulary: Vocabulary,
        num_guesses: int = _FIRST_GUESSES,
    ) -> None:
        """Put an assistant beside a session.

        Args:
            target: the model's own.
            open_assistant: gives the assistant's session of the same windows.
            vocabulary: of both.
            num_guesses: tokens guessed at first; later as many as have been right.
        """
        self.target = target
        self._guesser = _Guesser(open_assistant, vocabulary)
        self._open_assistant, self._vocabulary = open_assistant, vocabulary
        self._num_guesses = num_guesses
        self._prefix_length = 0
        self._written = self._guesses = np.zeros((0, 0), dtype=np.int64)
        self._logits: Logits = np.zeros((0, 0, 0), dtype=np.float32)  # (R, K + 1, V): of the token given and of guesses
        self._num_right = 0

    def start(self, prefix: TokenIds, positions: Sequence[int] | None = None) -> Logits:
        """Read a prefix with an empty cache; see ``DecoderSession``. Gives (B, P, V)."""
        self._prefix_length = prefix.shape[1]
        self._written = self._guesses = np.zeros((len(prefix), 0), dtype=np.int64)
        self._num_right = 0
        self._guesser.start(prefix)
        return self.target.start(prefix, positions)

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each row, (R,). Gives (R, V)."""
        place = self._num_right
        is_guessed = place < self._guesses.shape[1] and np.array_equal(self._guesses[:, place], token_ids)
        if not is_guessed:
            self._read_ahead(token_ids)
            place = -1
        self._num_right = place + 1
        self._written = np.column_stack([self._written, token_ids])
        logits: Logits = self._logits[:, place + 1]
        return logits

    def reorder(self, rows: Sequence[int]) -> None:
        """Let the texts go on from these rows' caches, guesses included."""
        self.target.reorder(rows)
        self._guesser.reorder(rows)
        self._written, self._guesses = self._written[list(rows)], self._guesses[list(rows)]
        if self._guesses.shape[1]:
            self._logits = self._logits[list(rows)]

    def select(self, rows: Sequence[int]) -> "SpeculativeSession":
        """Give a session of some of the windows."""
        return SpeculativeSession(
            self.target.select(rows),
            lambda: self._open_assistant().select(rows),
            vocabulary=self._vocabulary,
            num_guesses=self._num_guesses,
        )

    def attend(self, row: int, token_ids: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read given tokens for one window; see ``AttentionSource``."""
        return self.target.attend(row, token_ids)

    @property
    def _num_read(self) -> int:
        """Tokens of prefix and text, without guesses."""
        return self._prefix_length + self._written.shape[1]

    def _read_ahead(self, token_ids: TokenIds) -> None:
        """Guess what follows a token, (R,), and read both."""
        self._adapt()
        self.target.crop(self._num_read)
        room = MAX_LABEL_TOKENS - self._num_read - 1
        written = np.column_stack([self._written, token_ids])
        self._guesses = self._guesser.guess(written, num_guesses=min(self._num_guesses, room))
        self._logits = self.target.extend(np.column_stack([token_ids, self._guesses]))

    def _adapt(self) -> None:
        """Guess more where all guesses were right, and fewer where not."""
        if self._guesses.shape[1]:
            all_right = self._num_right == self._guesses.shape[1]
            self._num_guesses = self._num_guesses + _MORE if all_right else max(1, self._num_guesses - _FEWER)


class _Guesser:
    """The assistant: what it has read of a text, and how it goes on from there."""

    def __init__(self, open_assistant: OpenAssistant, vocabulary: Vocabulary) -> None:
        self._open, self._vocabulary = open_assistant, vocabulary
        self._session: RewindableSession | None = None
        self._prefix = self._read = np.zeros((0, 0), dtype=np.int64)
        self._rows = np.zeros(0, dtype=np.int64)  # the window of each row
        self._is_started = False
        self._rules: TokenRules | None = None

    def start(self, prefix: TokenIds) -> None:
        """Begin a new text; the prefix is read when something is to be guessed."""
        self._prefix = prefix
        self._rules = None
        self._read = np.zeros((len(prefix), 0), dtype=np.int64)
        self._rows = np.arange(len(prefix))
        self._is_started = False

    def reorder(self, rows: Sequence[int]) -> None:
        """Let the texts go on from these rows."""
        if self._session is not None and self._is_started:
            self._session.reorder(rows)
        self._read, self._rows = self._read[list(rows)], self._rows[list(rows)]

    def guess(self, written: TokenIds, *, num_guesses: int) -> TokenIds:
        """Go on from a text by the likeliest tokens, until all rows have ended.

        Args:
            written: (R, T) all tokens after the prefix, at least one.
            num_guesses: the most.

        Returns:
            (R, K).
        """
        num_written, end_id = written.shape[1], self._vocabulary.end_id
        if num_guesses < 1:
            return written[:, :0]
        logits = self._catch_up(written)
        if self._rules is None:
            self._rules = self._rules_of(num_tokens=logits.shape[1])
        while True:
            likeliest = self._rules.apply(logits, written).argmax(axis=1)
            chosen = np.where(written[:, -1] == end_id, end_id, likeliest)  # a row that ended is fed end tokens
            written = np.column_stack([written, chosen])
            if written.shape[1] == num_written + num_guesses or (chosen == end_id).all():
                return written[:, num_written:]
            logits = self._extend(chosen[:, None])

    def _catch_up(self, written: TokenIds) -> Logits:
        """Read what is new in a text, and forget guesses that were wrong; gives (R, V) of what follows."""
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
        assert self._session is not None, "caught up before"
        self._read = np.column_stack([self._read, token_ids])
        logits: Logits = self._session.extend(token_ids)[:, -1]
        return logits

    def _rules_of(self, *, num_tokens: int) -> TokenRules:
        """Give the rules by which the model itself writes: times, unless the prefix says that there are none."""
        no_timestamps = self._vocabulary.timestamps_from - 1
        return TokenRules.of(
            self._vocabulary, num_tokens=num_tokens, timestamps=int(self._prefix[0, -1]) != no_timestamps
        )
