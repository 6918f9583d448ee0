"""Our rules against openai-whisper's own logit filters, on logits and texts of every kind."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from openai_whisper import LANGUAGE_IDS, load_tokenizer
from transformers import GenerationConfig

from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.vocabulary import Vocabulary, build_vocabulary
from sottovoce.recognize.decoding.rules import TokenRules

NUM_TOKENS = 51_865
FROM, END = 50_364, 50_257


@pytest.fixture(scope="module")
def vocabulary(tiny_checkpoint) -> Vocabulary:
    """A stock Whisper's: its list of suppressed tokens, and neither a blank nor the end first."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    generation: GenerationConfig = checkpoint.model.generation_config
    generation.suppress_tokens = list(load_tokenizer().non_speech_tokens)
    return build_vocabulary(checkpoint.tokenizer, generation.to_dict(), source="stock")


@pytest.fixture(scope="module")
def filters():
    """openai-whisper's filters, in its order; it leaves the names of languages allowed."""
    load_tokenizer()
    from whisper import decoding

    dims = SimpleNamespace(n_text_ctx=448, n_audio_ctx=1_500)
    model = SimpleNamespace(is_multilingual=True, num_languages=99, dims=dims, decoder=SimpleNamespace(blocks=()))

    def build(**options):
        chosen = decoding.DecodingOptions(language="en", suppress_tokens=[-1, *LANGUAGE_IDS], **options)
        return decoding.DecodingTask(model, chosen).logit_filters

    return build


def texts(generator: np.random.Generator, num_written: int) -> np.ndarray:
    """Words and times in every order, well formed or not; times never decrease."""
    words = generator.integers(0, 50_000, (60, num_written))
    times = FROM + np.sort(generator.integers(0, 1_501, (60, num_written)), axis=1)
    return np.where(generator.random((60, num_written)) < 0.5, words, times)


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("num_written", [0, 1, 2, 3, 6])
def test_allowed_tokens_are_those_of_openai_whisper(vocabulary, filters, timestamps, num_written) -> None:
    generator = np.random.default_rng(num_written)
    logits = generator.normal(0.0, 3.0, (60, NUM_TOKENS)).astype(np.float32)
    logits[:30, FROM:] += 4.0
    written = texts(generator, num_written)
    prefix = [50_258, 50_259, 50_359] + ([] if timestamps else [50_363])
    tokens = torch.from_numpy(np.concatenate([np.tile(prefix, (60, 1)), written], axis=1))
    expected = torch.from_numpy(logits.copy())
    for one in filters(without_timestamps=not timestamps):
        one.apply(expected, tokens)
    if not timestamps:
        expected[:, 50_363:] = -np.inf  # ours alone: no times where none were asked for
    ours = TokenRules.of(vocabulary, num_tokens=NUM_TOKENS, timestamps=timestamps).apply(logits, written)
    assert np.array_equal(ours, expected.numpy())


def test_without_a_limit_any_first_timestamp_is_allowed(vocabulary, filters) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0.0, 3.0, (4, NUM_TOKENS)).astype(np.float32)
    expected = torch.from_numpy(logits.copy())
    for one in filters(max_initial_timestamp=None):
        one.apply(expected, torch.tensor([[50_258, 50_259, 50_359]] * 4))
    unlimited = replace(vocabulary, max_initial_timestamp_index=None)
    rules = TokenRules.of(unlimited, num_tokens=NUM_TOKENS, timestamps=True)
    assert np.array_equal(rules.apply(logits, np.zeros((4, 0), np.int64)), expected.numpy())


def test_the_logits_passed_in_are_not_changed(vocabulary) -> None:
    logits = np.zeros((1, NUM_TOKENS), np.float32)
    TokenRules.of(vocabulary, num_tokens=NUM_TOKENS, timestamps=True).apply(logits, np.zeros((1, 0), np.int64))
    assert not logits.any()
