from pathlib import Path

from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.settings import TrainingConfig
from sottovoce.train.worker_model import load_base


def spoken_in(*languages: str) -> list[Utterance]:
    return [Utterance(id=one, audio="a.wav", duration_s=1.0, text="x", language=one) for one in languages]


def test_context_language_and_task_are_in_the_files_of_what_is_trained(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = TrainingConfig(base=str(tiny_checkpoint), audio_context_s=(1.0, 6.0))
    save_checkpoint(load_base(config, spoken_in("de", "de")), tmp_path)
    trained = load_checkpoint(tmp_path)
    generation = trained.model.generation_config.to_dict()
    assert (generation["language"], generation["task"]) == ("de", "transcribe")
    assert generation.get("forced_decoder_ids") is None
    assert (trained.context.min_s, trained.context.max_s) == (1.0, 6.0)
    assert trained.languages == load_checkpoint(tiny_checkpoint).languages


def test_several_languages_leave_the_choice_to_detection(tiny_checkpoint: Path) -> None:
    model = load_base(TrainingConfig(base=str(tiny_checkpoint)), spoken_in("de", "en")).model
    assert model.generation_config.to_dict().get("language") is None
    assert (model.audio_context.min_s, model.audio_context.max_s) == (2.0, 10.0)


def test_the_task_is_that_of_the_data_and_transcription_where_it_is_mixed(tiny_checkpoint: Path) -> None:
    config = TrainingConfig(base=str(tiny_checkpoint))
    translated = [one.model_copy(update={"task": "translate"}) for one in spoken_in("de")]
    for utterances, task in ((translated, "translate"), ([*translated, *spoken_in("de")], "transcribe")):
        assert load_base(config, utterances).model.generation_config.to_dict()["task"] == task


def test_training_on_silence_lets_the_model_write_nothing_at_all(tiny_checkpoint: Path, tmp_path: Path) -> None:
    stock = load_checkpoint(tiny_checkpoint)
    stock.model.generation_config.begin_suppress_tokens = [220, stock.model.generation_config.eos_token_id]
    save_checkpoint(stock, tmp_path)
    config = TrainingConfig(base=str(tmp_path))
    silence = [one.model_copy(update={"text": " "}) for one in spoken_in("en")]
    with_silence = load_base(config, [*spoken_in("en"), *silence]).model.generation_config
    assert with_silence.begin_suppress_tokens == [220]
    assert load_base(config, spoken_in("en")).model.generation_config.begin_suppress_tokens == [220, 50257]
