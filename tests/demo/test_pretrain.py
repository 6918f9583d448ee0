import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperTokenizerFast

from sottovoce.demo.grammar import load_grammar, write_sentence
from sottovoce.demo.micro import fill_window
from sottovoce.demo.pool import SpeechPool, write_shard
from sottovoce.demo.pretrain import PretrainConfig, Pretraining, collect_token_ids, micro_generation_config
from sottovoce.demo.pretrain_batches import build_batch, pick_context
from sottovoce.model.labels import IGNORED


@pytest.fixture(scope="module")
def tokenizer(micro_assets: Path) -> WhisperTokenizerFast:
    return WhisperTokenizerFast.from_pretrained(micro_assets)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> SpeechPool:
    folder = tmp_path_factory.mktemp("pool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sottovoce.demo.pool._SHARD_SIZE", 12)
        write_shard(folder, 0, 0)
    return SpeechPool(folder)


def test_contexts_grow_with_the_step_and_short_ones_stay() -> None:
    def draw(step: int) -> set[float]:
        return {pick_context(step, np.random.default_rng(seed)) for seed in range(300)}

    assert draw(0) == {2.0, 2.5}
    assert min(draw(5_000)) == 2.0
    assert max(draw(5_000)) == 10.0


def test_a_batch_is_the_same_for_the_same_generator(pool: SpeechPool, tokenizer: WhisperTokenizerFast) -> None:
    first, again = (build_batch(pool, tokenizer, np.random.default_rng(1), context_s=4.0, size=6) for _ in range(2))
    assert first.input_features.shape == (6, 80, 400)
    torch.testing.assert_close(first.input_features, again.input_features)
    assert torch.equal(first.labels, again.labels)


def test_labels_are_the_inputs_one_token_later_and_given_tokens_have_no_loss(
    pool: SpeechPool, tokenizer: WhisperTokenizerFast
) -> None:
    batch = build_batch(pool, tokenizer, np.random.default_rng(2), context_s=4.0, size=6)
    assert (batch.decoder_input_ids[:, 0] == 50_258).all()
    assert (batch.labels[:, :2] == IGNORED).all()
    learned = batch.labels[:, 2:-1] != IGNORED
    assert torch.equal(batch.labels[:, 2:-1][learned], batch.decoder_input_ids[:, 3:][learned])


@pytest.mark.slow
def test_training_resumes_and_the_full_model_keeps_what_the_compact_one_says(
    pool: SpeechPool, tokenizer: WhisperTokenizerFast, tmp_path: Path
) -> None:
    token_ids = collect_token_ids(pool, tokenizer)
    training = Pretraining(PretrainConfig(num_steps=10), token_ids=token_ids)
    batch = build_batch(pool, tokenizer, np.random.default_rng(3), context_s=2.0, size=4)
    losses = [training.train_step(batch)[0] for _ in range(4)]
    assert losses[-1] < losses[0]
    training.save(tmp_path)
    resumed = Pretraining(PretrainConfig(num_steps=10), token_ids=token_ids)
    resumed.resume(tmp_path)
    assert resumed.step == 4
    assert resumed.train_step(batch) == training.train_step(batch)
    full = resumed.full_model()
    assert full.proj_out.weight.shape == (51_865, 192)
    compact_row = resumed.model.proj_out.weight[0]
    torch.testing.assert_close(full.proj_out.weight[token_ids[0]], compact_row)


def test_a_test_window_is_as_long_as_its_context_and_holds_no_trained_sentence() -> None:
    grammar = load_grammar("sentences")
    trained = {write_sentence(grammar, random.Random(seed)) for seed in range(2_000)}
    for seed in range(5):
        waveform, text = fill_window(random.Random(seed), ["en-us"], trained, context_s=6)
        assert len(waveform) == 6 * 16_000
        assert text
        assert text not in trained


def test_the_generation_config_names_all_a_consumer_looks_up(tokenizer: WhisperTokenizerFast) -> None:
    config = micro_generation_config(tokenizer)
    assert len(config.lang_to_id) == 99
    assert config.lang_to_id["<|en|>"] == 50_259
    assert config.task_to_id == {"transcribe": 50_359, "translate": 50_358}
    assert config.no_timestamps_token_id == 50_363
    assert not hasattr(config, "alignment_heads")  # no model has them before it is trained
