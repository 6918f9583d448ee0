"""Decoders whose every logit is written down, and the vocabulary they write."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from sottovoce.model.labels import TokenKinds
from sottovoce.model.vocabulary import Vocabulary

NUM_TOKENS = 12  # 0-4 text, 5 end, 6 start, 7 and 8 languages, 9 no speech, 10 no timestamps, 11 a timestamp
END = 5
START = 6
NO_SPEECH = 9
_LETTERS = "abcde"
Ended = TypeVar("Ended")


def in_order(steps: Iterable[Mapping[int, Ended]]) -> list[Ended]:
    """Take all steps; each row ends once."""
    ended: dict[int, Ended] = {}
    for found in steps:
        assert not ended.keys() & found.keys()
        ended |= found
    return [ended[row] for row in range(len(ended))]


class LetterTokenizer:
    """Writes a letter for each token of text."""

    def decode(self, token_ids, *, clean_up_tokenization_spaces):
        assert not clean_up_tokenization_spaces
        return "".join(_LETTERS[token] for token in token_ids)

    def convert_ids_to_tokens(self, token_id):
        return _LETTERS[token_id]


VOCABULARY = Vocabulary(
    tokenizer=LetterTokenizer(),
    languages=("en", "de"),
    language_ids=np.array([7, 8]),
    start_id=START,
    kinds=TokenKinds(END, timestamps_from=11),
    no_speech_id=NO_SPEECH,
    suppressed=np.array([4, 6, 7, 8, 9, 10]),
    suppressed_first=np.array([3, END]),
    previous_id=8,
    max_initial_timestamp_index=None,
)


class ScriptedSession:
    """Wants a given token at every step; the script of each window is a list of wishes, the first of them strongest."""

    def __init__(self, *scripts: list[list[int]]) -> None:
        self.scripts = list(scripts)
        self.rows = list(range(len(scripts)))
        self.step = 0
        self.fed: list[list[int]] = []
        self.selected: list[list[int]] = []

    def start(self, prefix, positions=None):
        self.step, self.rows = 0, list(range(len(self.scripts)))
        logits = np.zeros((*prefix.shape, NUM_TOKENS), np.float32)
        logits[:, -1] = self._logits()
        return logits if positions is None else logits[:, list(positions)]

    def advance(self, token_ids):
        self.step += 1
        self.fed.append(token_ids.tolist())
        return self._logits()

    def reorder(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row] for row in rows]

    def select(self, rows: Sequence[int]):
        self.selected.append(list(rows))
        return type(self)(*(self.scripts[row] for row in rows))

    def _logits(self):
        logits = np.zeros((len(self.rows), NUM_TOKENS), np.float32)
        for row, window in enumerate(self.rows):
            script = self.scripts[window]
            for rank, token in enumerate(script[min(self.step, len(script) - 1)]):
                logits[row, token] = 10.0 - rank
        return logits


Tree = Mapping[tuple[int, ...], Mapping[int, float]]
"""Probabilities of what follows after what was written; the end where nothing is said."""


class TreeSession:
    """What may follow depends on all that was written."""

    def __init__(self, *trees: Tree) -> None:
        self.trees = list(trees)
        self.histories: list[tuple[int, tuple[int, ...]]] = []
        self.num_rows: list[int] = []

    def start(self, prefix, positions=None):
        self.histories = [(window, ()) for window in range(len(self.trees))]
        logits = np.zeros((*prefix.shape, NUM_TOKENS), np.float32)
        logits[:, -1] = self._logits()
        return logits if positions is None else logits[:, list(positions)]

    def advance(self, token_ids):
        pairs = zip(self.histories, token_ids.tolist(), strict=True)
        self.histories = [(window, (*written, token)) for (window, written), token in pairs]
        self.num_rows.append(len(self.histories))
        return self._logits()

    def reorder(self, rows):
        self.histories = [self.histories[row] for row in rows]

    def select(self, rows):
        return type(self)(*(self.trees[row] for row in rows))

    def _logits(self):
        logits = np.full((len(self.histories), NUM_TOKENS), -np.inf, np.float32)
        for row, (window, written) in enumerate(self.histories):
            for token, probability in self.trees[window].get(written, {END: 1.0}).items():
                logits[row, token] = np.log(probability)
        return logits
