"""The CTranslate2 variants: their files, and the engine beside torch's on the same weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce.errors import CheckpointError, ConfigError, LanguageError, UnsupportedOptionError
from sottovoce.export.ctranslate2 import write_ctranslate2
from sottovoce.export.exporter import ExportConfig, export_checkpoint
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import DecodeOptions

PRECISIONS = ("float32", "float16", "int8_float16", "int8")
SHORT = DecodeOptions(max_new_tokens=12)
LOGPROB_TOLERANCE = 1e-4  # float32, two runtimes


@pytest.fixture(scope="module")
def exported(tiny_checkpoint, stated_score, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ct2")
    config = ExportConfig(variants=tuple(f"ct2-{precision}" for precision in PRECISIONS))
    export_checkpoint(config, tiny_checkpoint, folder, score=lambda _folder, _variant: stated_score)
    return folder


@pytest.fixture(scope="module")
def engine(exported) -> Recognizer:
    return load_recognizer(exported, variant="ct2-float32")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint) -> Recognizer:
    return load_recognizer(tiny_checkpoint)


KINDS = {
    "greedy": SHORT,
    "detected language": replace(SHORT, language=None),
    "translation": replace(SHORT, language="de", task="translate"),
    "timestamps": replace(SHORT, timestamps=True),
    "beams": replace(SHORT, beam_size=3),
    "patient beams": replace(SHORT, beam_size=3, patience=2.0, length_penalty=0.6),
    "prompt": replace(SHORT, prompt="Dr. Meyer", previous_ids=(400, 401)),
    "one token": replace(SHORT, max_new_tokens=1),
    "no token": replace(SHORT, max_new_tokens=0),
    "to the last position": replace(SHORT, previous_ids=(400,) * 300, max_new_tokens=10_000),
    "log-probabilities": replace(SHORT, token_logprobs=True),
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_each_option_gives_the_tokens_of_torch(engine, reference, speech_like, options):
    """The windows have different contexts, and all are shorter than Whisper's own."""
    windows = speech_like[::4]
    for ours, torchs in zip(*(one.recognize(windows, [options] * 3) for one in (engine, reference)), strict=True):
        assert ours.token_ids == torchs.token_ids
        assert ours.avg_logprob == pytest.approx(torchs.avg_logprob, abs=LOGPROB_TOLERANCE)
        assert ours.no_speech_prob == pytest.approx(torchs.no_speech_prob, abs=LOGPROB_TOLERANCE)
        assert ours.language == torchs.language
        assert [(one.start_s, one.end_s) for one in ours.segments] == [
            (one.start_s, one.end_s) for one in torchs.segments
        ]
        assert [one.utf8 for one in ours.token_logprobs] == [one.utf8 for one in torchs.token_logprobs]
        assert [one.logprob for one in ours.token_logprobs] == pytest.approx(
            [one.logprob for one in torchs.token_logprobs], abs=LOGPROB_TOLERANCE
        )


def test_windows_of_one_batch_have_their_own_options(engine, speech_like):
    kinds = [SHORT, replace(SHORT, beam_size=3), replace(SHORT, max_new_tokens=5), replace(SHORT, language=None)]
    window = speech_like[4]
    together = engine.recognize([window] * 4, kinds)
    alone = [engine.recognize([window], [kind])[0] for kind in kinds]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert [one.avg_logprob for one in together] == pytest.approx(
        [one.avg_logprob for one in alone], abs=LOGPROB_TOLERANCE
    )


def test_an_implausible_text_is_sampled_at_the_next_temperature(engine, speech_like):
    fallback = replace(SHORT, temperatures=(0.0, 0.4), logprob_threshold=1.0, no_speech_threshold=None)
    sampled = replace(SHORT, temperatures=(1.0,), best_of=3)
    results = engine.recognize([speech_like[3]] * 2, [fallback, sampled])
    greedy = engine.recognize([speech_like[3]], [SHORT])[0]
    assert results[0].avg_logprob >= greedy.avg_logprob - LOGPROB_TOLERANCE  # no text is plausible: the likeliest
    assert results[1].temperature == 1.0
    assert len(results[1].token_ids) == 12


def test_a_seed_is_refused_by_its_name(engine, speech_like):
    with pytest.raises(UnsupportedOptionError, match="ct2-float32 does not support seed"):
        engine.recognize(speech_like[:1], [replace(SHORT, seed=3)])


def test_a_language_the_model_lacks_is_refused(engine, speech_like):
    with pytest.raises(LanguageError):
        engine.recognize(speech_like[:1], [replace(SHORT, language="xx")])


def test_words_come_in_order_and_within_the_window(engine, reference, speech_like):
    timed = replace(SHORT, word_timestamps=True, max_new_tokens=30)
    window = speech_like[5]
    ours, torchs = (one.recognize([window], [timed])[0].words for one in (engine, reference))
    assert [word.text for word in ours] == [word.text for word in torchs] != []
    times = [time_s for word in ours for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0.0
    assert times[-1] <= len(window) / 16_000
    assert all(0.0 <= word.probability <= 1.0 for word in ours)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_is_loaded_and_decodes(exported, speech_like, precision):
    recognizer = load_recognizer(exported, variant=f"ct2-{precision}")
    assert recognizer.name == f"ct2-{precision}"
    assert recognizer.context.max_s == 10.0
    assert len(recognizer.recognize(speech_like[:2], [SHORT] * 2)) == 2


def test_a_whole_export_leaves_the_checkpoint_in_memory_as_it_was(tiny_checkpoint, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    before = {name: weights.clone() for name, weights in checkpoint.model.state_dict().items()}
    (tmp_path / "config.json").write_text((tiny_checkpoint / "config.json").read_text())
    write_ctranslate2(checkpoint, tmp_path, variant="ct2-int8", versions={})
    after = checkpoint.model.state_dict()
    assert all(torch.equal(after[name], weights) for name, weights in before.items())


def test_the_folder_is_one_that_faster_whisper_reads(exported, engine):
    whisper = pytest.importorskip("faster_whisper").WhisperModel(str(exported / "ct2-float32"), device="cpu")
    config = json.loads((exported / "ct2-float32" / "config.json").read_text())
    assert config["alignment_heads"] == [[0, 0], [0, 1]]
    assert config["audio_context_s"] == [2.0, 10.0]
    assert config["architectures"]
    assert whisper.feature_extractor.n_fft == 400
    assert set(engine.languages) <= set(whisper.supported_languages)


def test_a_truncated_model_is_refused_with_the_remedy(exported, tmp_path):
    folder = tmp_path / "ct2-int8"
    folder.mkdir()
    for path in (exported / "ct2-int8").iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content[: len(content) // 2] if path.name == "model.bin" else content)
    with pytest.raises(CheckpointError, match="export it again"):
        load_recognizer(tmp_path, variant="ct2-int8")


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_loaded(exported):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="finds no CUDA device; use device cpu"):
        load_recognizer(exported, variant="ct2-int8", device="cuda")


def test_an_empty_window_is_read_as_silence(engine):
    assert len(engine.recognize([np.zeros(0, np.float32)], [SHORT])) == 1
