"""Generation configs that transformers would not save, and those of 2022, checked by transformers itself."""

import json
import logging
import warnings
from pathlib import Path

import pytest
from narrow_whisper import narrow_config
from transformers import GenerationConfig, WhisperTokenizerFast

from sottovoce.errors import CheckpointError
from sottovoce.model.checkpoint import load_checkpoint, read_model_config, save_checkpoint
from sottovoce.model.generation import load_generation_config
from sottovoce.model.vocabulary import build_vocabulary

OF_2022 = {
    "_from_model_config": True,
    "begin_suppress_tokens": [220, 50_257],
    "bos_token_id": 50_257,
    "decoder_start_token_id": 50_258,
    "eos_token_id": 50_257,
    "forced_decoder_ids": [[1, None], [2, 50_359]],
    "max_length": 448,
    "pad_token_id": 50_257,
    "transformers_version": "4.26.0.dev0",
    "use_cache": False,
}
"""What transformers wrote beside a model that was fine-tuned then."""


@pytest.fixture(scope="module")
def tokenizer(micro_assets: Path) -> WhisperTokenizerFast:
    return WhisperTokenizerFast.from_pretrained(micro_assets, local_files_only=True)


def write(folder: Path, generation: object, **config: object) -> Path:
    """Write the two configs of a checkpoint."""
    values = narrow_config().to_dict() | config
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def stock(tiny_checkpoint: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((tiny_checkpoint / "generation_config.json").read_text())
    return values


UNSAVABLE = [
    ({"temperature": 0.2}, ["temperature"]),
    ({"do_sample": False, "top_k": 0, "top_p": 0.9, "typical_p": 0.5}, ["top_k", "top_p", "typical_p"]),
    ({"min_p": 0.1, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1}, ["min_p", "epsilon_cutoff", "eta_cutoff"]),
    ({"num_beams": 1, "early_stopping": True, "length_penalty": 0.6}, ["early_stopping", "length_penalty"]),
    ({"num_beams": 5, "early_stopping": "sometimes"}, ["early_stopping"]),
    ({"num_return_sequences": 3}, ["num_return_sequences"]),
    ({"num_beams": 2, "num_return_sequences": 3}, ["num_return_sequences"]),
    ({"max_new_tokens": 0}, ["max_new_tokens"]),
    ({"pad_token_id": -1}, ["pad_token_id"]),
    ({"cache_implementation": "of my own"}, ["cache_implementation"]),
    ({"use_cache": False, "return_legacy_cache": True}, ["return_legacy_cache"]),
    ({"output_attentions": True, "output_scores": True}, ["output_attentions", "output_scores"]),
    ({"compile_config": {"fullgraph": True}}, ["compile_config"]),
    ({"assistant_model": "whisper-tiny", "streamer": None}, ["assistant_model", "streamer"]),
    ({"early_stopping": "sometimes", "max_new_tokens": -5, "temperature": 0.0}, ["temperature", "max_new_tokens"]),
]


@pytest.mark.parametrize(("bad", "dropped"), UNSAVABLE, ids=lambda value: ",".join(value))
def test_settings_that_transformers_would_not_save_are_dropped_and_named_in_one_line(
    tokenizer, tiny_checkpoint, tmp_path, caplog, bad, dropped
) -> None:
    good = stock(tiny_checkpoint)
    with pytest.raises((ValueError, TypeError)):  # otherwise nothing is shown here
        GenerationConfig(**good | bad).save_pretrained(tmp_path)
    write(tmp_path, good | bad)
    with caplog.at_level(logging.INFO, "sottovoce"), warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_generation_config(tmp_path, tokenizer, source="theirs")
        config.save_pretrained(tmp_path / "again")
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("sottovoce")]
    assert "theirs" in line
    assert all(f"{name}={bad[name]!r}" in line for name in dropped)
    saved = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert saved["lang_to_id"] == good["lang_to_id"]
    assert saved["pad_token_id"] == good["pad_token_id"]
    assert not saved.keys() & set(dropped) - {"pad_token_id"}


def test_settings_that_go_together_stay_and_nothing_is_said(tokenizer, tiny_checkpoint, tmp_path, caplog) -> None:
    sampled = {"do_sample": True, "temperature": 0.2, "num_beams": 4, "early_stopping": True, "length_penalty": 0.6}
    write(tmp_path, stock(tiny_checkpoint) | sampled | {"return_timestamps": True})
    config = load_generation_config(tmp_path, tokenizer, source="theirs").to_dict()
    assert {name: config[name] for name in sampled} == sampled
    assert config["return_timestamps"] is True
    assert not [record for record in caplog.records if record.name.startswith("sottovoce")]


@pytest.mark.parametrize("generation", [OF_2022, {}], ids=["2022", "empty"])
def test_a_config_of_2022_gets_languages_tasks_and_tokens_from_the_tokenizer(
    tokenizer, tiny_checkpoint, tmp_path, generation
) -> None:
    config = load_generation_config(write(tmp_path, generation), tokenizer, source="old")
    new = stock(tiny_checkpoint)
    for name in ("lang_to_id", "task_to_id", "no_timestamps_token_id", "prev_sot_token_id", "is_multilingual"):
        assert getattr(config, name) == new[name]
    assert (config.decoder_start_token_id, config.eos_token_id, config.max_length) == (50_258, 50_257, 448)
    assert not config._from_model_config, "generate would build it anew from config.json"
    assert len(build_vocabulary(tokenizer, config.to_dict(), source="old").languages) == 99
    config.save_pretrained(tmp_path / "again")


def test_a_checkpoint_of_2022_loads_saves_and_keeps_what_was_in_its_config(tiny_checkpoint, tmp_path) -> None:
    for file in tiny_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    misplaced = {"max_length": 448, "suppress_tokens": [1, 2, 7], "begin_suppress_tokens": [220, 50_257], "top_k": 3}
    write(tmp_path, {name: value for name, value in OF_2022.items() if name not in misplaced}, **config | misplaced)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.languages[:2] == ("en", "zh")
    checkpoint.model.generation_config.begin_suppress_tokens = [220]  # as a run that learns silence does
    save_checkpoint(checkpoint, tmp_path / "again")  # warnings are errors: nothing is left to be moved
    saved = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert (saved["suppress_tokens"], saved["begin_suppress_tokens"]) == ([1, 2, 7], [220])
    assert "top_k" not in saved
    assert load_checkpoint(tmp_path / "again").model.generation_config.max_length == 448


def test_the_generation_config_counts_before_the_models(tokenizer, tiny_checkpoint, tmp_path) -> None:
    write(tmp_path, stock(tiny_checkpoint) | {"suppress_tokens": [5]}, suppress_tokens=[1, 2], num_return_sequences=7)
    config = load_generation_config(tmp_path, tokenizer, source="theirs")
    assert (config.suppress_tokens, config.num_return_sequences) == ([5], 1)
    assert read_model_config(tmp_path).num_return_sequences is None


def test_a_config_that_transformers_refuses_without_a_name_is_refused_in_one_line(
    tokenizer, tiny_checkpoint, tmp_path
) -> None:
    write(tmp_path, stock(tiny_checkpoint) | {"watermarking_config": "mine"})
    with pytest.raises(CheckpointError, match=r"theirs: transformers cannot use its generation_config\.json: 'str'.*$"):
        load_generation_config(tmp_path, tokenizer, source="theirs")
