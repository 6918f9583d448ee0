"""The greedy loop against a decoder whose every logit is written down."""

import numpy as np
import pytest

from sottovoce.recognize.greedy import decode_greedy, detect_languages
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
)


class ScriptedSession:
    """Wants a given token at every step; the script of each window is a list of wishes."""

    def __init__(self, *scripts: list[list[int]]) -> None:
        self.scripts = scripts
        self.step = 0
        self.fed: list[list[int]] = []

    def start(self, prefix):
        self.step = 0
        logits = np.zeros((*prefix.shape, NUM_TOKENS), np.float32)
        logits[:, -1] = self._logits()
        return logits

    def advance(self, token_ids):
        self.step += 1
        self.fed.append(token_ids.tolist())
        return self._logits()

    def _logits(self):
        logits = np.zeros((len(self.scripts), NUM_TOKENS), np.float32)
        for row, script in enumerate(self.scripts):
            for rank, token in enumerate(script[min(self.step, len(script) - 1)]):
                logits[row, token] = 10.0 - rank
        return logits


def decode(session, *, limits, timestamps=False):
    prefix = np.full((len(limits), 3), 6)
    return decode_greedy(session, prefix, vocabulary=VOCABULARY, limits=limits, timestamps=timestamps)


def test_decoding_stops_at_the_end_token_of_the_last_window():
    session = ScriptedSession([[0], [END]], [[1], [2], [0], [END]])
    first, second = decode(session, limits=[9, 9])
    assert (first.token_ids, second.token_ids) == ((0,), (1, 2, 0))
    assert session.fed == [[0, 1], [END, 2], [END, 0]]


def test_each_window_has_its_own_limit():
    first, second, third = decode(ScriptedSession([[0]], [[1]], [[2]]), limits=[2, 4, 0])
    assert (first.token_ids, second.token_ids, third.token_ids) == ((0, 0), (1, 1, 1, 1), ())


def test_suppressed_tokens_give_way_to_the_next_best():
    (hypothesis,) = decode(ScriptedSession([[4, 3, 2], [4, 3, 2], [10, END]]), limits=[9])
    assert hypothesis.token_ids == (2, 3)


def test_timestamps_are_written_only_on_request():
    (without,) = decode(ScriptedSession([[11, 1], [END]]), limits=[9])
    (with_timestamps,) = decode(ScriptedSession([[11, 1], [END]]), limits=[9], timestamps=True)
    assert (without.token_ids, with_timestamps.token_ids) == ((1,), (11,))


def test_a_transcript_with_times_begins_with_one_and_ends_its_words_with_one():
    wishes = [[1, 11], [11, 1], [11, END], [END]]
    (hypothesis,) = decode(ScriptedSession(wishes), limits=[9], timestamps=True)
    assert hypothesis.token_ids == (11, 1)  # the only time there is cannot end what it started
    (untimed,) = decode(ScriptedSession(wishes), limits=[9])
    assert untimed.token_ids == (1, 1)


def test_the_mean_log_probability_counts_the_end_token():
    (hypothesis,) = decode(ScriptedSession([[0], [END]]), limits=[9])
    allowed_first, allowed_then = 3, 5  # tokens that are not suppressed
    first = 10 - np.log(np.exp(10.0) + allowed_first - 1)
    second = 10 - np.log(np.exp(10.0) + allowed_then - 1)
    assert hypothesis.avg_logprob == pytest.approx((first + second) / 2, abs=1e-6)


def test_the_no_speech_probability_is_read_at_the_first_position():
    class Silent(ScriptedSession):
        def start(self, prefix):
            logits = super().start(prefix)
            logits[:, 0, 9] = np.log(NUM_TOKENS - 1)
            return logits

    (hypothesis,) = decode(Silent([[END], [END]]), limits=[9])
    assert hypothesis.no_speech_prob == pytest.approx(0.5)


def test_the_likeliest_language_is_chosen_among_languages_only():
    session = ScriptedSession([[0, 8, 7]], [[9, 7]])
    assert detect_languages(session, VOCABULARY, batch_size=2) == ["de", "en"]
