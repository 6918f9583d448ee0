"""A decoder whose every logit is written down, and the vocabulary it writes."""

from collections.abc import Sequence

import numpy as np

from sottovoce.recognize.vocabulary import Vocabulary

NUM_TOKENS = 12  # 0-4 text, 5 end, 6 start, 7 and 8 languages, 9 no speech, 10 no timestamps, 11 a timestamp
END = 5
VOCABULARY = Vocabulary(
    tokenizer=None,
    languages=("en", "de"),
    language_ids=np.array([7, 8]),
    start_id=6,
    end_id=END,
    no_speech_id=9,
    suppressed=np.array([4, 6, 7, 8, 9, 10]),
    suppressed_first=np.array([3, END]),
    timestamps_from=11,
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
