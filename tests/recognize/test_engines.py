"""Both engines against the Recognizer protocol, and against each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GenerationMixin, WhisperForConditionalGeneration

from sottovoce.audio.decode import read_audio
from sottovoce.audio.features import log_mel
from sottovoce.errors import ContextError, LanguageError
from sottovoce.export.onnx import export_onnx
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.model.context import set_audio_context
from sottovoce.model.labels import MAX_PROMPT_TOKENS
from sottovoce.recognize import encoded_windows
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.torch_engine import TorchRecognizer, load_torch
from sottovoce.schema import DecodeOptions, WindowResult

VARIANTS = ("torch", "fp32", "int8")
SHORT = DecodeOptions(max_new_tokens=12)
MIXED = [
    SHORT,
    replace(SHORT, language="de", task="translate"),
    replace(SHORT, language=None, max_new_tokens=5),
    replace(SHORT, timestamps=True),
    replace(SHORT, beam_size=3, prompt="Dr. Meyer"),
    replace(SHORT, temperatures=(0.8,), best_of=2, seed=3),
    replace(SHORT, temperatures=(0.0, 0.4), logprob_threshold=-0.5, previous_ids=(50_364, 400, 50_400)),
]
LOGPROB_TOLERANCE = 1e-4  # float32, two runtimes


@pytest.fixture(scope="module")
def recognizers(tiny_checkpoint, tiny_export) -> dict[str, Recognizer]:
    folders = {"torch": tiny_checkpoint, "fp32": tiny_export, "int8": tiny_export}
    return {variant: load_recognizer(folders[variant], variant=variant) for variant in VARIANTS}


@pytest.fixture(scope="module")
def mixed(speech_like) -> list[DecodeOptions]:
    """Options of every kind, for one window each."""
    return [MIXED[i % len(MIXED)] for i in range(len(speech_like))]


@pytest.fixture(scope="module")
def written(recognizers, speech_like, mixed) -> dict[str, list[WindowResult]]:
    """What each engine writes for all windows at once."""
    return {variant: engine.recognize(speech_like, mixed) for variant, engine in recognizers.items()}


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture
def recognizer(recognizers, variant) -> Recognizer:
    return recognizers[variant]


def test_each_window_gets_its_own_result_in_order(recognizer, variant, speech_like, mixed, written):
    together = written[variant]
    assert len(together) == len(speech_like)
    alone = [recognizer.recognize([w], [o])[0] for w, o in zip(speech_like, mixed, strict=True)]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    for a, b in zip(together, alone, strict=True):
        assert a.avg_logprob == pytest.approx(b.avg_logprob, abs=LOGPROB_TOLERANCE)


def test_windows_with_beam_search_sampling_and_fallback_share_a_batch(recognizer, speech_like):
    """Of one context and prefix length, so that the engine encodes them together."""
    kinds = [
        SHORT,
        replace(SHORT, beam_size=3),
        replace(SHORT, temperatures=(0.7,), best_of=2),
        replace(SHORT, temperatures=(0.0, 0.3, 0.6), logprob_threshold=-0.2, no_speech_threshold=None),
        replace(SHORT, temperatures=(0.5,), seed=1),
        replace(SHORT, language=None),
    ]
    options = kinds * 2
    windows = [speech_like[4 + row // 2][:30_000] for row in range(12)]
    together = recognizer.recognize(windows, options)
    fell_back = together[3::6]  # at no temperature plausible: the likeliest text is kept
    assert {one.temperature for one in fell_back} <= {0.0, 0.3, 0.6}
    assert [one.temperature for one in together if one not in fell_back] == [0.0, 0.0, 0.7, 0.5, 0.0] * 2
    alone = [recognizer.recognize([w], [o])[0] for w, o in zip(windows, options, strict=True)]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]


def test_long_prompts_of_many_windows_give_each_its_own_result(recognizer, speech_like):
    options = [
        replace(SHORT, previous_ids=tuple(range(1_000 * row, 1_000 * row + 300)), max_new_tokens=4) for row in range(6)
    ]
    windows = [speech_like[1]] * 6
    together = recognizer.recognize(windows, options)
    alone = [recognizer.recognize([w], [o])[0] for w, o in zip(windows, options, strict=True)]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    assert len({result.avg_logprob for result in together}) == 6


def test_int8_generates_the_same_tokens_for_a_window_each_time_and_when_loaded_again(
    recognizers, tiny_export, speech_like
):
    engines = [recognizers["int8"], recognizers["int8"], load_recognizer(tiny_export, variant="int8")]
    options = [replace(SHORT, max_new_tokens=100)]
    first, *others = [engine.recognize(speech_like[3:4], options)[0] for engine in engines]
    assert len(first.token_ids) == 100
    for other in others:
        assert (other.token_ids, other.avg_logprob) == (first.token_ids, first.avg_logprob)


def test_results_are_within_their_ranges(recognizer, variant, mixed, written):
    for option, result in zip(mixed, written[variant], strict=True):
        assert len(result.token_ids) <= option.max_new_tokens
        assert result.avg_logprob < 0
        assert 0 <= result.no_speech_prob <= 1
        assert result.language in recognizer.languages
        assert option.language in (None, result.language)
        assert "<|" not in result.text
        assert result.text == result.text.strip()


def test_tokens_that_are_no_text_are_never_generated(recognizer, speech_like):
    for result in recognizer.recognize(speech_like, [SHORT] * len(speech_like)):
        assert max(result.token_ids, default=0) < 50_257
        assert result.token_ids[:1] != (220,)  # begin_suppress_tokens of the generation config


def test_no_windows_give_no_results(recognizer):
    assert recognizer.recognize([], []) == []


def test_an_empty_window_is_read_as_silence(recognizer):
    assert len(recognizer.recognize([np.zeros(0, np.float32)], [SHORT])) == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_no_new_tokens_give_an_empty_text(recognizer, speech_like, limit):
    result = recognizer.recognize(speech_like[:1], [replace(SHORT, max_new_tokens=limit)])[0]
    assert (result.token_ids, result.text, result.avg_logprob) == ((), "", 0.0)


def test_prefix_and_new_tokens_stay_within_the_decoders_positions(recognizer, speech_like):
    """A prefix of the greatest length, to be there in half the steps; without one: test_words."""
    options = replace(SHORT, previous_ids=(400,) * MAX_PROMPT_TOKENS, max_new_tokens=10_000)
    result = recognizer.recognize(speech_like[:1], [options])[0]
    assert len(result.token_ids) == 448 - (1 + MAX_PROMPT_TOKENS + 4)


def test_a_window_longer_than_the_context_raises_context_error(recognizer):
    with pytest.raises(ContextError):
        recognizer.recognize([np.zeros(16_000 * 10 + 1, np.float32)], [SHORT])


@pytest.mark.parametrize("language", ["xx", "transcribe", "EN"])
def test_an_unknown_language_raises_language_error(recognizer, speech_like, language):
    with pytest.raises(LanguageError):
        recognizer.recognize(speech_like[:1], [replace(SHORT, language=language)])


def test_engines_name_themselves_and_know_their_context(recognizer):
    assert recognizer.name in {"torch", "onnx-fp32", "onnx-int8"}
    assert (recognizer.context.min_s, recognizer.context.max_s) == (2.0, 10.0)
    assert len(recognizer.languages) == 99


def test_onnx_fp32_generates_the_tokens_of_torch(written):
    expected, results = written["torch"], written["fp32"]
    assert [result.token_ids for result in results] == [result.token_ids for result in expected]
    assert [result.language for result in results] == [result.language for result in expected]
    assert [result.temperature for result in results] == [result.temperature for result in expected]
    assert {result.temperature for result in results} >= {0.0, 0.8}
    for a, b in zip(results, expected, strict=True):
        assert a.language_probability == pytest.approx(b.language_probability, abs=LOGPROB_TOLERANCE)
        assert a.avg_logprob == pytest.approx(b.avg_logprob, abs=LOGPROB_TOLERANCE)
        assert a.no_speech_prob == pytest.approx(b.no_speech_prob, abs=LOGPROB_TOLERANCE)


@pytest.mark.slow
def test_onnx_fp32_generates_the_tokens_of_torch_on_a_hundred_recordings(shared_data, micro_assets, tmp_path):
    if not (micro_assets / "model.safetensors").is_file():
        pytest.skip("the embedded base model's weights are not there yet")
    recordings = sorted((shared_data / "fsdd").rglob("*.wav"))
    waveforms = [read_audio(path) for path in recordings[:: max(1, len(recordings) // 100)]][:100]
    assert len(waveforms) == 100
    checkpoint = load_checkpoint(micro_assets)
    save_checkpoint(checkpoint, tmp_path)
    export_onnx(checkpoint, tmp_path)
    options = [DecodeOptions(max_new_tokens=32)] * 100
    expected = TorchRecognizer(checkpoint).recognize(waveforms, options)
    results = load_recognizer(tmp_path, variant="fp32").recognize(waveforms, options)
    assert [result.token_ids for result in results] == [result.token_ids for result in expected]


def test_torch_generates_the_tokens_of_hugging_faces_generate(tiny_checkpoint, speech_like):
    """Over 30 s of context, where Hugging Face's own Whisper can run too."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    set_audio_context(checkpoint.model.config, AudioContext())
    options = [DecodeOptions(max_new_tokens=10)] * 2
    results = TorchRecognizer(checkpoint).recognize(speech_like[3:5], options)
    model = WhisperForConditionalGeneration.from_pretrained(tiny_checkpoint, local_files_only=True).eval()
    features = np.stack([log_mel(w, num_mel_bins=80, num_frames=3_000, padding="frames") for w in speech_like[3:5]])
    generation = model.generation_config
    generation.suppress_tokens = list(range(50_258, 51_865))  # what our rules never write
    prompt = torch.tensor([[50_258, 50_259, 50_359, 50_363]] * 2)
    ids = _generate_plainly(model, torch.from_numpy(features), prompt, generation)
    for result, row in zip(results, ids.tolist(), strict=True):
        expected = [token for token in row[4:] if token != 50_257]
        assert list(result.token_ids) == expected


def _generate_plainly(model, features, prompt, generation):
    """The generic greedy search of transformers, without Whisper's own windowing around it."""
    return GenerationMixin.generate(
        model, features, generation_config=generation, decoder_input_ids=prompt, max_new_tokens=10, do_sample=False
    )


def test_the_torch_engine_leaves_threads_and_training_mode_as_they_were(tiny_checkpoint, speech_like):
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.model.train()
    checkpoint.model.model.encoder.eval()  # as a frozen encoder is
    before = torch.get_num_threads()
    TorchRecognizer(checkpoint, num_threads=before + 1).recognize(speech_like[:1], [SHORT])
    assert torch.get_num_threads() == before
    assert checkpoint.model.training
    assert checkpoint.model.model.decoder.layers[0].training
    assert not checkpoint.model.model.encoder.layers[0].training
    assert all(parameter.requires_grad for parameter in checkpoint.model.model.decoder.layers.parameters())


def test_small_batches_give_the_results_of_large_ones(tiny_checkpoint, speech_like):
    checkpoint = load_checkpoint(tiny_checkpoint)
    options = [SHORT] * len(speech_like)
    one, many = (TorchRecognizer(checkpoint, max_batch_size=size).recognize(speech_like, options) for size in (1, 16))
    assert [result.token_ids for result in one] == [result.token_ids for result in many]


def test_onnx_encodes_as_many_windows_at_once_as_memory_should_hold(recognizers, speech_like, monkeypatch):
    windows, options = [speech_like[0][:30_000]] * 3 + [speech_like[1][:30_000]] * 2, [SHORT] * 5
    together = recognizers["fp32"].recognize(windows, options)
    monkeypatch.setattr(encoded_windows, "_FRAMES_AT_ONCE", 1)
    assert [one.token_ids for one in recognizers["fp32"].recognize(windows, options)] == [
        one.token_ids for one in together
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_recognizes(tiny_checkpoint, speech_like, dtype):
    checkpoint = load_checkpoint(tiny_checkpoint)
    in_float, mixed = (
        TorchRecognizer(checkpoint, autocast=kind).recognize(speech_like, [SHORT] * 12) for kind in (None, dtype)
    )
    halved = load_torch(tiny_checkpoint, num_threads=1, device="cpu", dtype=dtype).recognize(speech_like, [SHORT] * 12)
    for a, b, c in zip(in_float, mixed, halved, strict=True):
        assert b.avg_logprob == pytest.approx(a.avg_logprob, abs=1.0)
        assert c.avg_logprob == pytest.approx(a.avg_logprob, abs=1.0)


@pytest.mark.gpu
def test_fp16_on_cuda_recognizes(tiny_checkpoint, speech_like):
    recognizer = load_torch(tiny_checkpoint, num_threads=1, device="cuda", dtype=torch.float16)
    expected = load_recognizer(tiny_checkpoint).recognize(speech_like, [SHORT] * len(speech_like))
    results = recognizer.recognize(speech_like, [SHORT] * len(speech_like))
    firsts = [a.token_ids[:1] == b.token_ids[:1] for a, b in zip(results, expected, strict=True)]
    assert sum(firsts) >= 0.8 * len(firsts)
