"""An assistant changes how long a text takes, and never the text."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from assistants import assert_same, shaken

from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.vocabulary import build_vocabulary
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.speculative import SpeculativeSession
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, WindowResult

SHORT = DecodeOptions(max_new_tokens=10)
MIXED = [
    SHORT,
    replace(SHORT, timestamps=True),
    replace(SHORT, prompt="names: Ada, Grace", max_new_tokens=7),
    replace(SHORT, language=None, task="translate"),
]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def expected(tiny, speech_like) -> list[WindowResult]:
    return TorchRecognizer(tiny).recognize(speech_like[:6], [MIXED[index % 4] for index in range(6)])


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("max_batch_size", [1, 16])
def test_the_text_is_the_models_own_with_any_assistant(tiny, expected, speech_like, scale, max_batch_size):
    recognizer = TorchRecognizer(tiny, assistant=shaken(tiny, scale), max_batch_size=max_batch_size)
    assert_same(recognizer.recognize(speech_like[:6], [MIXED[index % 4] for index in range(6)]), expected)


def test_with_an_assistant_the_model_runs_fewer_times_than_it_generates_tokens(tiny, speech_like):
    assistant = shaken(tiny, 0.0)
    num_reads = {"model": 0, "assistant": 0}

    def count(name):
        return lambda *_: num_reads.update({name: num_reads[name] + 1})

    hooks = [
        checkpoint.model.model.decoder.register_forward_hook(count(name))
        for name, checkpoint in (("model", tiny), ("assistant", assistant))
    ]
    try:
        results = TorchRecognizer(tiny, assistant=assistant).recognize(speech_like[:1], [SHORT])
    finally:
        for hook in hooks:
            hook.remove()
    num_tokens = len(results[0].token_ids)
    assert num_tokens == 10
    assert num_reads["model"] < num_tokens / 2  # the prefix; five right drafted tokens at first, and then seven
    assert num_reads["assistant"] >= num_tokens - 1


def test_an_assistant_with_another_encoder_encodes_for_itself(tiny, expected, speech_like):
    assistant = shaken(tiny, 0.0)
    with torch.no_grad():
        assistant.model.model.encoder.conv1.weight.mul_(1.01)
    results = TorchRecognizer(tiny, assistant=assistant).recognize(speech_like[:6], [MIXED[i % 4] for i in range(6)])
    assert_same(results, expected)


def test_fallback_beam_search_and_sampling_are_those_without_an_assistant(tiny, speech_like):
    hard = replace(SHORT, temperatures=(0.0, 0.4, 0.8), logprob_threshold=-0.5, no_speech_threshold=None)
    options = [hard, replace(hard, best_of=3), replace(SHORT, beam_size=3), replace(SHORT, temperatures=(0.7,))]
    expected = TorchRecognizer(tiny).recognize(speech_like[:4], options)
    assert {result.temperature for result in expected} > {0.0}
    assert_same(TorchRecognizer(tiny, assistant=shaken(tiny, 0.1)).recognize(speech_like[:4], options), expected)


def test_words_are_timed_with_an_assistant_too(tiny, speech_like):
    timed = [replace(SHORT, word_timestamps=True)]
    alone = TorchRecognizer(tiny).recognize(speech_like[:1], timed)
    assert TorchRecognizer(tiny, assistant=tiny).recognize(speech_like[:1], timed)[0].words == alone[0].words


@pytest.mark.slow
def test_a_text_that_fills_the_decoder_is_not_read_beyond_its_positions(tiny, speech_like):
    options = [replace(SHORT, max_new_tokens=448)]
    alone = TorchRecognizer(tiny).recognize(speech_like[:1], options)
    assert len(alone[0].token_ids) == 444
    assert_same(TorchRecognizer(tiny, assistant=tiny).recognize(speech_like[:1], options), alone)


class Script:
    """A session that writes a given text for each row whatever it is fed, and counts its calls."""

    def __init__(self, texts: list[list[int]]) -> None:
        self.texts = np.array(texts)
        self.num_read = self.num_calls = self.prefix_length = 0

    def start(self, prefix, positions=None):
        assert len(prefix) == len(self.texts)
        self.num_read = self.prefix_length = prefix.shape[1]
        return np.zeros((len(prefix), 0, 51_865), np.float32)

    def extend(self, token_ids):
        self.num_calls += 1
        self.num_read += token_ids.shape[1]
        logits = np.zeros((*token_ids.shape, 51_865), np.float32)
        for row, text in enumerate(self.texts):
            for position in range(token_ids.shape[1]):
                at = self.num_read - self.prefix_length - token_ids.shape[1] + position + 1
                logits[row, position, text[min(at, len(text) - 1)]] = 1.0
        return logits

    def crop(self, num_tokens):
        assert num_tokens <= self.num_read
        self.num_read = num_tokens

    def reorder(self, rows):
        self.texts = self.texts[list(rows)]


PREFIX = np.array([[50_258, 50_259, 50_359, 50_363]] * 2)
END = 50_257
TEXTS = [[10, 11, 12, 13, 14, 15, 16, 17, 18, END], [20, 21, 22, 23, END, END, END, END, END, END]]


def write(session: SpeculativeSession, num_tokens: int) -> list[list[int]]:
    """Write greedily after a first token."""
    session.start(PREFIX)
    written = [np.array([10, 20])]
    while len(written) < num_tokens:
        written.append(session.advance(written[-1]).argmax(axis=1))
    return np.stack(written, axis=1).tolist()


@pytest.fixture(scope="module")
def vocabulary(tiny):
    return build_vocabulary(tiny.tokenizer, tiny.model.generation_config.to_dict(), source="tiny")


def test_right_drafts_are_read_in_one_call_and_ended_rows_do_not_delay_others(vocabulary):
    target, assistant = Script(TEXTS), Script(TEXTS)
    session = SpeculativeSession(target, lambda: assistant, vocabulary=vocabulary, num_drafted=4)
    assert write(session, 10) == TEXTS
    assert target.num_calls == 2  # the first token with four drafted ones, then one with six


def test_a_wrong_draft_in_one_row_rewinds_all_rows(vocabulary):
    wrong = [[*TEXTS[0][:3], 99, *TEXTS[0][4:]], TEXTS[1]]
    target, assistant = Script(TEXTS), Script(wrong)
    session = SpeculativeSession(target, lambda: assistant, vocabulary=vocabulary, num_drafted=4)
    assert write(session, 10) == TEXTS
    assert target.num_calls == 3  # up to the wrong draft; then three drafted tokens, and five


def test_rows_may_leave_or_change_order_and_keep_their_drafts(vocabulary):
    target, assistant = Script(TEXTS), Script(TEXTS)
    session = SpeculativeSession(target, lambda: assistant, vocabulary=vocabulary, num_drafted=4)
    session.start(PREFIX)
    session.reorder([1, 0])  # before the first draft
    assert session.advance(np.array([20, 10])).argmax(axis=1).tolist() == [21, 11]
    session.reorder([1])
    assert [session.advance(np.array([token])).argmax() for token in TEXTS[0][1:9]] == TEXTS[0][2:]
    assert target.num_calls == 2


def test_an_assistant_with_other_mel_bins_is_refused_by_name(tiny):
    other = shaken(tiny, 0.0)
    other.model.config.num_mel_bins = 128
    with pytest.raises(CheckpointError, match=rf"shaken: it cannot assist {tiny.source}.*128 mel bins, not 80"):
        TorchRecognizer(tiny, assistant=other)


def test_an_assistant_with_another_tokenizer_is_refused(tiny):
    other = replace(shaken(tiny, 0.0), tokenizer=copy.deepcopy(tiny.tokenizer))
    other.tokenizer.add_tokens(["<|more|>"])
    with pytest.raises(CheckpointError, match="its tokenizer is another"):
        TorchRecognizer(tiny, assistant=other)


def test_an_assistant_with_a_shorter_encoder_than_the_model_is_refused(tiny):
    other = shaken(tiny, 0.0)
    other.model.config.max_source_positions = 400
    with pytest.raises(CheckpointError, match="400 positions, fewer than 500"):
        TorchRecognizer(tiny, assistant=other)


def test_a_folder_loads_with_an_assistant_and_an_exported_variant_does_not(tiny_checkpoint, expected, speech_like):
    recognizer = load_recognizer(tiny_checkpoint, assistant=tiny_checkpoint)
    assert_same(recognizer.recognize(speech_like[:4], MIXED), expected[:4])
    with pytest.raises(ConfigError, match="only variant torch takes an assistant"):
        load_recognizer(tiny_checkpoint, variant="int8", assistant=tiny_checkpoint)
