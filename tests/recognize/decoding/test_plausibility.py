"""Whisper's thresholds, one by one, and openai-whisper's own loop around a decoder that says what it is told."""

import zlib
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from openai_whisper import load_tokenizer

from sottovoce.recognize.decoding.plausibility import compression_ratio, is_plausible, is_silence
from sottovoce.schema import DecodeOptions

OPTIONS = DecodeOptions()
PLAIN, REPEATED = "what was said", "said " * 60


def plausible(options: DecodeOptions = OPTIONS, *, text=PLAIN, avg_logprob=-0.5, no_speech_prob=0.0) -> bool:
    return is_plausible(options, text=text, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)


def test_repetition_compresses() -> None:
    assert compression_ratio(PLAIN) < 1.0 < 2.4 < compression_ratio(REPEATED)
    assert compression_ratio("") == 0.0
    assert compression_ratio("ää") == 4 / len(zlib.compress("ää".encode()))


def test_repeated_and_unlikely_texts_are_not_plausible() -> None:
    assert plausible()
    assert not plausible(text=REPEATED)
    assert not plausible(avg_logprob=-1.01)
    assert plausible(avg_logprob=-1.0)


def test_an_unlikely_text_is_kept_if_silence_is_likely() -> None:
    assert plausible(avg_logprob=-1.5, no_speech_prob=0.7)
    assert plausible(text=REPEATED, avg_logprob=-1.5, no_speech_prob=0.7)
    assert not plausible(text=REPEATED, no_speech_prob=0.7)
    assert not plausible(avg_logprob=-1.5, no_speech_prob=0.6)


def test_a_threshold_of_none_is_not_applied() -> None:
    assert plausible(replace(OPTIONS, compression_ratio_threshold=None), text=REPEATED)
    assert plausible(replace(OPTIONS, logprob_threshold=None), avg_logprob=-9.0)
    assert not plausible(replace(OPTIONS, no_speech_threshold=None), avg_logprob=-1.5, no_speech_prob=1.0)


@pytest.mark.parametrize(
    ("no_speech_prob", "avg_logprob", "silent"),
    [(0.7, -1.5, True), (0.7, -1.0, True), (0.7, -0.9, False), (0.6, -1.5, False)],
)
def test_silence_is_likely_and_its_text_is_not(no_speech_prob: float, avg_logprob: float, silent: bool) -> None:
    assert is_silence(OPTIONS, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob) is silent


def test_silence_needs_no_log_probability_without_a_threshold() -> None:
    assert is_silence(replace(OPTIONS, logprob_threshold=None), avg_logprob=-0.1, no_speech_prob=0.7)
    assert not is_silence(replace(OPTIONS, no_speech_threshold=None), avg_logprob=-9.0, no_speech_prob=1.0)


class ToldModel:
    """What openai-whisper's loop needs of a model; its decoder gives the same result at every temperature."""

    device, is_multilingual, num_languages = "cpu", True, 99
    dims = SimpleNamespace(n_mels=80, n_audio_ctx=1_500, n_text_ctx=448)

    def __init__(self, **told: object) -> None:
        self.told = told
        self.num_attempts = 0

    def decode(self, _segment, options):
        from whisper.decoding import DecodingResult

        self.num_attempts += 1
        return DecodingResult(
            audio_features=None, language="en", tokens=[50_364, 1_234, 50_464], temperature=options.temperature,
            **self.told,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("logprob_threshold", [-1.0, None])
@pytest.mark.parametrize("no_speech_threshold", [0.6, None])
@pytest.mark.parametrize("compression_ratio_threshold", [2.4, None])
def test_fallback_and_skipping_are_those_of_openai_whisper(
    logprob_threshold, no_speech_threshold, compression_ratio_threshold
) -> None:
    load_tokenizer()
    import whisper

    thresholds = {
        "logprob_threshold": logprob_threshold,
        "no_speech_threshold": no_speech_threshold,
        "compression_ratio_threshold": compression_ratio_threshold,
    }
    options = DecodeOptions(**thresholds)
    for text, avg_logprob, no_speech_prob in product((PLAIN, REPEATED), (-0.5, -1.0, -1.5), (0.1, 0.6, 0.9)):
        model = ToldModel(
            text=text, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob, compression_ratio=compression_ratio(text)
        )
        told = whisper.transcribe(
            model, np.zeros(16_000, np.float32), temperature=(0.0, 0.5), language="en", fp16=False, **thresholds
        )
        tried_again = not is_plausible(options, text=text, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)
        assert model.num_attempts == 1 + tried_again
        skipped = is_silence(options, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)
        assert bool(told["segments"]) is not skipped
