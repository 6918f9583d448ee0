import copy

import numpy as np
import pytest
from transformers.models.whisper.tokenization_whisper import bytes_to_unicode

from sottovoce.errors import CheckpointError
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.vocabulary import _byte_codes, build_vocabulary
from sottovoce.schema import DecodeOptions


@pytest.fixture
def checkpoint(tiny_checkpoint) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def test_ids_stand_where_whisper_has_them(checkpoint) -> None:
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")
    assert (vocabulary.end_id, vocabulary.start_id, vocabulary.previous_id) == (50_257, 50_258, 50_361)
    assert (vocabulary.no_speech_id, vocabulary.kinds.timestamps_from) == (50_362, 50_364)
    names = [f"<|{code}|>" for code in vocabulary.languages]
    assert checkpoint.tokenizer.convert_tokens_to_ids(names) == vocabulary.language_ids.tolist()


@pytest.mark.parametrize("named", [25, None])
def test_the_latest_first_time_is_the_generation_configs(checkpoint, named) -> None:
    checkpoint.model.generation_config.max_initial_timestamp_index = named
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")
    assert vocabulary.max_initial_timestamp_index == named


def test_it_is_openai_whispers_second_where_the_config_names_none(checkpoint) -> None:
    del checkpoint.model.generation_config.max_initial_timestamp_index
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")
    assert vocabulary.max_initial_timestamp_index == 50


def test_every_text_token_has_the_bytes_the_tokenizer_decodes(checkpoint) -> None:
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")
    ids = np.random.default_rng(0).integers(0, vocabulary.end_id, 300).tolist()
    joined = b"".join(vocabulary.utf8(token) for token in ids)
    assert joined.decode("utf-8", errors="replace") == vocabulary.raw_text(tuple(ids))


def test_tokens_that_were_added_are_text_and_no_times(checkpoint) -> None:
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    assert tokenizer.add_tokens(["Zystoskopie", "śródpiersie"]) == 2
    vocabulary = build_vocabulary(tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")
    added = tokenizer.convert_tokens_to_ids(["Zystoskopie", "śródpiersie"])
    assert added == [vocabulary.kinds.timestamps_to, vocabulary.kinds.timestamps_to + 1] == [51_865, 51_866]
    time = vocabulary.kinds.timestamps_from + 50
    assert vocabulary.text((added[0], time, added[1])) == "Zystoskopieśródpiersie"
    assert [vocabulary.utf8(token).decode() for token in added] == ["Zystoskopie", "śródpiersie"]
    without_times = vocabulary.penalties(51_867, timestamps=False, first=False)
    assert np.isneginf(without_times[vocabulary.kinds.timestamps_from : 51_865]).all()
    assert without_times[51_865:].tolist() == [0.0, 0.0]
    assert vocabulary.kinds.are_times([time, *added]).tolist() == [True, False, False]
    assert vocabulary.previous(DecodeOptions(prompt="Zystoskopie"))[-1] == added[0]


def test_a_generation_config_without_languages_raises_checkpoint_error(checkpoint) -> None:
    checkpoint.model.generation_config.lang_to_id = {}
    with pytest.raises(CheckpointError, match="lang_to_id"):
        build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")


def test_letters_of_a_vocabulary_file_stand_for_the_bytes_of_transformers() -> None:
    assert _byte_codes() == {letter: byte for byte, letter in bytes_to_unicode().items()}
