from dataclasses import replace

import numpy as np
import pytest

from sottovoce.demo.speech import Voice, speak, speak_words
from sottovoce.errors import CheckpointError, WordTimesUnavailableError
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions

TEXT = "The doctor opened the small window."
TIMED = DecodeOptions(word_timestamps=True)
MAX_MEDIAN_ERROR_S = 0.1  # of six starts and ends; over hundreds it is 0.02 s


@pytest.fixture(scope="module")
def micro(micro_assets) -> Recognizer:
    return load_recognizer(micro_assets)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.1, 0.1, 60_000).astype(np.float32)


def test_words_of_a_sentence_come_with_their_times(micro):
    waveform, spoken = speak_words(TEXT, Voice(name="en-us", words_per_minute=150))
    result = micro.recognize([waveform], [TIMED])[0]
    assert result.text == TEXT
    assert [word.text for word in result.words] == TEXT.split() == [word.text for word in spoken]
    pairs = list(zip(result.words, spoken, strict=True))
    errors = [(word.start_s - true.start_s, word.end_s - true.end_s) for word, true in pairs]
    assert np.median(np.abs(errors)) <= MAX_MEDIAN_ERROR_S
    assert all(0.2 < word.probability <= 1.0 for word in result.words)


def test_each_window_of_a_batch_has_its_own_words_or_none(micro):
    short, long = (speak(text, Voice(name="en-us")) for text in ("One two three.", TEXT))
    options = [TIMED, DecodeOptions(), replace(TIMED, timestamps=True), replace(TIMED, language=None), TIMED]
    windows = [long, long, short, short, long[:8_000]]
    together = micro.recognize(windows, options)
    alone = [micro.recognize([window], [option])[0] for window, option in zip(windows, options, strict=True)]
    assert [len(result.words) > 0 for result in together] == [True, False, True, True, True]
    for result, single in zip(together, alone, strict=True):
        assert [word.text for word in result.words] == [word.text for word in single.words]
        for word, other in zip(result.words, single.words, strict=True):
            assert word.start_s == pytest.approx(other.start_s, abs=0.02)


def test_a_transcript_that_fills_the_decoder_is_timed_as_far_as_it_fits(tiny_checkpoint, noise):
    result = load_recognizer(tiny_checkpoint).recognize([noise], [replace(TIMED, max_new_tokens=444)])[0]
    assert len(result.token_ids) == 444
    times = [at_s for word in result.words for at_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[-1] <= len(noise) / 16_000


@pytest.mark.parametrize("window", [np.zeros(0, np.float32), np.zeros(16_000, np.float32)])
def test_a_window_without_speech_is_no_error(micro, window):
    for word in micro.recognize([window], [TIMED])[0].words:
        assert 0.0 <= word.start_s <= word.end_s <= len(window) / 16_000


def test_no_tokens_are_no_words(micro, noise):
    assert micro.recognize([noise], [replace(TIMED, max_new_tokens=0)])[0].words == ()


def test_an_exported_variant_refuses_and_names_the_engine_that_can(tiny_export, noise):
    recognizer = load_recognizer(tiny_export, variant="fp32")
    with pytest.raises(WordTimesUnavailableError, match="variant torch"):
        recognizer.recognize([noise], [TIMED])


def test_heads_the_decoder_lacks_are_named_when_words_are_asked_for(tiny_checkpoint, noise):
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.model.generation_config.alignment_heads = [[3, 0]]
    recognizer = TorchRecognizer(checkpoint)
    assert not recognizer.recognize([noise], [DecodeOptions(max_new_tokens=3)])[0].words
    with pytest.raises(CheckpointError, match="alignment heads"):
        recognizer.recognize([noise], [replace(TIMED, max_new_tokens=3)])
