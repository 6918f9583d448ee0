import json
import shutil

import numpy as np
import pytest

from sottovoce.demo.speech import TRAINING_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.errors import CheckpointError
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.words import alignment_heads as heads_module
from sottovoce.words.alignment_heads import HeadChoice, choose_heads, measure_heads, write_heads
from sottovoce.words.cross_attention import alignment_heads, all_heads
from sottovoce.words.timed_speech import TimedSpeech

MAX_ERROR_S = 0.1


@pytest.fixture(scope="module")
def micro(micro_assets) -> Checkpoint:
    return load_checkpoint(micro_assets)


@pytest.fixture(scope="module")
def speech() -> list[TimedSpeech]:
    return speak_timed(4, voices=TRAINING_VOICES[:4], max_s=5.0, seed=5)


@pytest.fixture(scope="module")
def choice(micro, speech) -> HeadChoice:
    micro.model.generation_config.alignment_heads = [[0, 2]]  # the one head of micro that follows the sound least
    found = choose_heads(micro, speech)
    assert found is not None
    return found


def test_heads_are_chosen_that_time_words_right_and_the_same_ones_again(micro, speech, choice):
    micro.model.generation_config.alignment_heads = [[0, 2]]
    assert choose_heads(micro, speech) == choice
    assert choice.is_new
    assert choice.error_s <= MAX_ERROR_S < choice.error_before_s
    assert set(choice.heads) <= set(all_heads(micro.model))
    assert choice.num_times == 2 * sum(len(one.pieces) for one in speech)
    assert np.median(np.abs(measure_heads(micro, speech, choice.heads))) == pytest.approx(choice.error_s, abs=1e-4)


def test_heads_that_are_as_good_stay(micro, speech, choice):
    micro.model.generation_config.alignment_heads = [list(head) for head in choice.heads]
    kept = choose_heads(micro, speech)
    assert (kept.heads, kept.is_new) == (choice.heads, False)
    assert kept.error_before_s == kept.error_s


def test_heads_are_kept_if_those_with_better_boundaries_time_the_words_worse(micro, speech, choice, monkeypatch):
    before = ((0, 2),)
    micro.model.generation_config.alignment_heads = [list(head) for head in before]
    monkeypatch.setattr(heads_module, "_word_errors", lambda _c, _r, heads: [0.1 if tuple(heads) == before else 0.2])
    kept = choose_heads(micro, speech)
    assert (kept.heads, kept.is_new, kept.error_s, kept.error_before_s) == (before, False, 0.1, 0.1)


def test_heads_that_the_decoder_lacks_are_replaced(micro, speech):
    micro.model.generation_config.alignment_heads = [[layer, head] for layer in range(2) for head in range(6)]
    choice = choose_heads(micro, speech[:2])
    assert choice.is_new
    assert choice.error_before_s is None


def test_windows_of_one_piece_choose_nothing(micro, speech):
    assert choose_heads(micro, []) is None
    assert choose_heads(micro, [TimedSpeech(speech[0].waveform, speech[0].pieces[:1])]) is None


def test_only_the_heads_are_written(micro_assets, tmp_path):
    shutil.copy(micro_assets / "generation_config.json", tmp_path)
    write_heads(tmp_path, [(1, 0), (1, 2)])
    before, after = (json.loads((folder / "generation_config.json").read_text()) for folder in (micro_assets, tmp_path))
    assert after.pop("alignment_heads") == [[1, 0], [1, 2]]
    del before["alignment_heads"]
    assert after == before


@pytest.mark.parametrize("content", [None, "{"])
def test_a_folder_without_generation_config_is_a_checkpoint_error(tmp_path, content):
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="generation_config"):
        write_heads(tmp_path, [(0, 0)])


def test_the_embedded_model_names_heads_it_has_and_states_their_error(micro_assets):
    heads = alignment_heads(load_checkpoint(micro_assets).model)
    timing = json.loads((micro_assets / "record.json").read_text())["word_timing"]
    assert [list(head) for head in heads] == timing["heads"]
    assert timing["unseen_error_s"] <= MAX_ERROR_S
