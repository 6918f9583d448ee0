"""An English-only Whisper (whisper-base.en and the like): trained, exported, recognized with and served.

Its vocabulary is GPT-2's, so every special token stands one id lower, and no token names language or task.
"""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from narrow_whisper import save_narrow
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from serve.http.speech_request import SpeechRequest
from serve.models.loading import ModelLoader, warm_up
from serve.models.model_plan import ModelPlan
from serve.transcriber import Transcriber
from sottovoce.errors import LanguageError, UnsupportedOptionError
from sottovoce.export.exporter import ExportConfig, export_checkpoint
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.model.labels import encode_example, prefix_ids, used_token_ids
from sottovoce.model.vocabulary import build_vocabulary
from sottovoce.recognize.load import load_recognizer
from sottovoce.schema import DecodeOptions, Example, Utterance
from sottovoce.train.objective import WhisperObjective, prepare_whisper

END, START, NO_SPEECH, NO_TIMESTAMPS, FIRST_TIME = 50_256, 50_257, 50_361, 50_362, 50_363
SHORT = DecodeOptions(language=None, max_new_tokens=10, temperatures=(0.0,), no_speech_threshold=None)
UTTERANCES = tuple(
    Utterance(id=text, audio="a.wav", duration_s=1.0, text=text) for text in ("Hello world.", "Good morning.", "")
)


@pytest.fixture(scope="module")
def published(micro_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one of width 64, 2+2 layers and a context of 2 s, with the generation config of 2022."""
    shape = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "max_source_positions": 100}
    context = {"audio_context_s": [2.0, 2.0], "init_std": 0.3}
    folder = save_narrow("base.en", micro_assets, tmp_path_factory.mktemp("english"), **shape, **context)
    of_2022 = {
        "begin_suppress_tokens": [220, END],
        "decoder_start_token_id": START,
        "forced_decoder_ids": [[1, NO_TIMESTAMPS]],
        "language": "en",
        "max_length": 448,
        "suppress_tokens": [1, 2, 7, *range(START, NO_TIMESTAMPS)],
        "temperature": 0.2,
    }
    (folder / "generation_config.json").write_text(json.dumps(of_2022))
    return folder


@pytest.fixture(scope="module")
def checkpoint(published: Path) -> Checkpoint:
    return load_checkpoint(published)


@pytest.fixture(scope="module")
def trained(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some steps later."""
    checkpoint = load_checkpoint(published)
    prepare_whisper(checkpoint.model, method="full", dropout=0.0, gradient_checkpointing=False)
    objective = WhisperObjective(checkpoint.model)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    features = torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(3):
        losses.append(sum(_loss(objective, features, checkpoint, utterance) for utterance in UTTERANCES))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    save_checkpoint(checkpoint, folder)
    return folder


def _loss(
    objective: WhisperObjective, features: torch.Tensor, checkpoint: Checkpoint, utterance: Utterance
) -> torch.Tensor:
    labels = encode_example(checkpoint.tokenizer, Example(utterances=(utterance,)), num_samples=[16_000])
    return objective(features, torch.tensor([labels.inputs]), torch.tensor([labels.targets])).total


def test_its_tokens_are_one_id_lower_and_its_times_exactly_1501(checkpoint) -> None:
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="en")
    assert len(checkpoint.tokenizer) == checkpoint.model.config.vocab_size == 51_864
    assert (vocabulary.end_id, vocabulary.start_id, vocabulary.previous_id) == (END, START, 50_360)
    assert (vocabulary.no_speech_id, vocabulary.kinds.timestamps_from) == (NO_SPEECH, FIRST_TIME)
    assert vocabulary.kinds.timestamps_to - vocabulary.kinds.timestamps_from == 1_501
    assert checkpoint.tokenizer.convert_tokens_to_ids(["<|0.00|>", "<|30.00|>"]) == [FIRST_TIME, 51_863]
    assert vocabulary.languages == checkpoint.languages == ("en",)
    never = vocabulary.penalties(51_864, timestamps=True, first=False)
    assert np.flatnonzero(np.isneginf(never)).tolist() == [1, 2, 7, *range(START, FIRST_TIME)]
    assert np.isneginf(vocabulary.penalties(51_864, timestamps=True, first=True)[[220, END]]).all()


def test_its_labels_name_neither_language_nor_task(checkpoint) -> None:
    tokenizer = checkpoint.tokenizer
    assert prefix_ids(tokenizer, language="en", task="transcribe", timestamps=True) == [START]
    spoken, _, silent = (
        encode_example(tokenizer, Example(utterances=(one,)), num_samples=[16_000], timestamps=True)
        for one in UTTERANCES
    )
    words = tokenizer(" Hello world.", add_special_tokens=False).input_ids
    assert spoken.inputs == [START, FIRST_TIME, *words, FIRST_TIME + 50]
    assert spoken.targets == [*spoken.inputs[1:], END]
    assert (silent.inputs, silent.targets) == ([START, NO_TIMESTAMPS], [NO_SPEECH, END])
    assert used_token_ids(tokenizer, UTTERANCES[:1]) == {START, NO_TIMESTAMPS, *words, END}


def test_another_language_and_translation_are_refused_in_one_sentence(checkpoint) -> None:
    with pytest.raises(LanguageError, match="'de'"):
        prefix_ids(checkpoint.tokenizer, language="de", task="transcribe", timestamps=False)
    with pytest.raises(UnsupportedOptionError, match="English-only model does not support task translate: its text is"):
        prefix_ids(checkpoint.tokenizer, language="en", task="translate", timestamps=False)


def test_its_generation_config_of_2022_names_no_language(checkpoint) -> None:
    config = checkpoint.model.generation_config.to_dict()
    assert config["is_multilingual"] is False
    assert (config["no_timestamps_token_id"], config["prev_sot_token_id"]) == (NO_TIMESTAMPS, 50_360)
    assert not config.keys() & {"lang_to_id", "task_to_id", "language", "task"}
    assert config["temperature"] == 1.0


def test_the_service_lists_english_and_refuses_other_languages(published, monkeypatch) -> None:
    loader = ModelLoader(num_threads=1)
    plan = ModelPlan(key="en@torch/1", folder=str(published), variant="torch", created=1)
    model = loader.load(plan, loader.measure(plan))
    warm_up(model.recognizer)

    async def load(_: str) -> object:
        return model

    replica = SimpleNamespace(_load=load, _superseded=SimpleNamespace(look=lambda: None))
    served = asyncio.run(Transcriber.prepare(replica, "en@torch/1"))
    assert served.language_names == {"en": "english"}
    request = SpeechRequest(
        file=None, model="en", task="transcribe", prompt="", temperature=0.0, response_format="json"
    )
    assert request.spoken_in(served.language_names).language is None
    with pytest.raises(ValueError, match="language 'de' is unknown to this model"):
        SpeechRequest(**vars(request) | {"language": "de"}).spoken_in(served.language_names)


@pytest.mark.slow  # four graphs are traced, and CTranslate2 converts
def test_every_format_gives_the_tokens_of_transformers(trained, tmp_path, speech_like, stated_score) -> None:
    config = ExportConfig(variants=("fp32", "int8", "ct2-float32"))
    export_checkpoint(config, trained, tmp_path, score=lambda _folder, _variant: stated_score)
    windows = [waveform[:32_000] for waveform in speech_like[3:6]]
    features = WhisperFeatureExtractor(chunk_length=2)(
        windows, sampling_rate=16_000, return_tensors="pt"
    ).input_features
    stock = WhisperForConditionalGeneration.from_pretrained(trained).eval()
    expected = stock.generate(features, max_new_tokens=SHORT.max_new_tokens, do_sample=False).tolist()
    for variant in ("torch", *config.variants):
        recognizer = load_recognizer(trained if variant == "torch" else tmp_path, variant=variant)
        assert recognizer.languages == ("en",)
        results = recognizer.recognize(windows, [SHORT] * 3)
        assert {(one.language, one.language_probability) for one in results} == {("en", 1.0)}
        if variant != "int8":  # rounded weights choose other tokens of a model that has learned next to nothing
            assert [list(one.token_ids) for one in results] == [
                [token for token in ids if token != END] for ids in expected
            ]
        timed = recognizer.recognize(windows[:1], [DecodeOptions(max_new_tokens=10, word_timestamps=True)])[0]
        assert len(timed.words) > 1
        assert all(0.0 <= word.start_s <= word.end_s <= 2.0 for word in timed.words)
        with pytest.raises(LanguageError, match="'de'"):
            recognizer.recognize(windows[:1], [DecodeOptions(language="de")])
        with pytest.raises(UnsupportedOptionError, match="task translate"):
            recognizer.recognize(windows[:1], [DecodeOptions(task="translate")])
