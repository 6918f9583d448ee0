"""Decoding against openai-whisper's own on the same weights and the same encoded sound: equal tokens.

openai-whisper forbids neither the names of languages nor, where none are asked for, times; a trained model writes
neither, a random one does. What we forbid on top is given to it as tokens to suppress.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai_whisper import LANGUAGE_IDS, load_tokenizer

from benchmarks.openai_whisper import as_openai_whisper
from benchmarks.whisper_parity import random_checkpoint, suppress_like_openai
from sottovoce.audio.decode import read_audio
from sottovoce.audio.features import log_mel_batch
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, Waveform, WindowResult

NUM_WINDOWS = 40  # hundreds: benchmarks.whisper_parity
BATCH_SIZE = 20
LOGPROB_TOLERANCE = 1e-4  # sums of up to 224 float32
PROBABILITY_TOLERANCE = 1e-5
TIMES = DecodeOptions(timestamps=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # its beams sort a tensor with NumPy
]


@dataclass(frozen=True)
class Pair:
    """The same weights in both models, and what both hear, encoded."""

    ours: TorchRecognizer
    theirs: Any
    encoded: torch.Tensor

    def recognize(self, options: DecodeOptions, *, limit: int = NUM_WINDOWS) -> list[WindowResult]:
        batches = self.encoded[:limit].split(BATCH_SIZE)
        return [one for batch in batches for one in self.ours.recognize_encoded(batch, [options] * len(batch))]

    def decode(self, *, limit: int = NUM_WINDOWS, **options: Any) -> list[Any]:
        from whisper.decoding import DecodingOptions

        suppressed = [-1, *LANGUAGE_IDS]
        if options.get("without_timestamps"):
            suppressed += range(50_363, 51_865)
        chosen = DecodingOptions(**({"language": "en"} | options), fp16=False, suppress_tokens=suppressed)
        size = 1 if "beam_size" in options else BATCH_SIZE  # its beams of several windows do not fit together
        return [one for batch in self.encoded[:limit].split(size) for one in self.theirs.decode(batch, chosen)]


@pytest.fixture(scope="module", params=["micro", "random"])
def pair(request: pytest.FixtureRequest, micro_assets: Path) -> Pair:
    checkpoint = load_checkpoint(micro_assets) if request.param == "micro" else random_checkpoint()
    real = [read_audio(path) for path in real_speech(request)] if request.param == "micro" else noise(NUM_WINDOWS // 2)
    spoken = speak_timed(NUM_WINDOWS - len(real), voices=UNSEEN_VOICES, max_s=9.5, seed=5)
    return make_pair(checkpoint, [*real, *(one.waveform for one in spoken)])


def real_speech(request: pytest.FixtureRequest) -> list[Path]:
    recordings = sorted((request.getfixturevalue("shared_data") / "fsdd").rglob("*.wav"))
    return recordings[:: len(recordings) // (NUM_WINDOWS // 2)][: NUM_WINDOWS // 2]


def noise(count: int) -> list[Waveform]:
    generator = np.random.default_rng(0)
    loud = generator.uniform(0.01, 0.5, count)
    return [(level * generator.standard_normal(16_000 * 5)).astype(np.float32) for level in loud]


def make_pair(checkpoint: Checkpoint, waveforms: list[Waveform]) -> Pair:
    """Read all over 30 s, with the tokens that stock Whispers suppress."""
    load_tokenizer()
    suppress_like_openai(checkpoint)
    ours = TorchRecognizer(checkpoint)
    assert len(waveforms) == NUM_WINDOWS
    encoded = [
        ours.encode(torch.from_numpy(log_mel_batch(waveforms[i : i + 10], num_mel_bins=80, num_frames=3_000)))
        for i in range(0, NUM_WINDOWS, 10)
    ]
    return Pair(ours, as_openai_whisper(checkpoint), torch.cat(encoded).clone())


def assert_same(results: list[WindowResult], expected: list[Any]) -> None:
    assert [list(one.token_ids) for one in results] == [one.tokens for one in expected]
    assert [one.text for one in results] == [one.text for one in expected]
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=LOGPROB_TOLERANCE)
        assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=PROBABILITY_TOLERANCE)
        assert ours.compression_ratio == pytest.approx(theirs.compression_ratio)


def test_greedy_with_times_writes_equal_tokens_on_forty_utterances(pair: Pair) -> None:
    results = pair.recognize(TIMES)
    assert len(results) == NUM_WINDOWS
    assert_same(results, pair.decode())


def test_greedy_without_times_writes_equal_tokens_on_forty_utterances(pair: Pair) -> None:
    assert_same(pair.recognize(DecodeOptions()), pair.decode(without_timestamps=True))


def test_translation_writes_equal_tokens(pair: Pair) -> None:
    assert_same(pair.recognize(replace(TIMES, task="translate"), limit=20), pair.decode(limit=20, task="translate"))


@pytest.mark.parametrize(("patience", "length_penalty"), [(1.0, None), (2.0, None), (1.0, 0.6)])
def test_beam_search_writes_equal_tokens(pair: Pair, patience: float, length_penalty: float | None) -> None:
    options = replace(TIMES, beam_size=5, patience=patience, length_penalty=length_penalty, max_new_tokens=40)
    expected = pair.decode(limit=10, beam_size=5, patience=patience, length_penalty=length_penalty, sample_len=40)
    assert_same(pair.recognize(options, limit=10), expected)


def test_a_prompt_leads_to_equal_tokens(pair: Pair) -> None:
    prompt = "Dr. Meyer, three milligrams. "
    assert_same(pair.recognize(replace(TIMES, prompt=prompt), limit=20), pair.decode(limit=20, prompt=prompt))


def test_previous_tokens_of_any_number_lead_to_equal_tokens(pair: Pair) -> None:
    before = [50_364, *range(1_000, 1_300), 50_464]
    options = replace(TIMES, previous_ids=tuple(before), max_new_tokens=20)
    assert_same(pair.recognize(options, limit=20), pair.decode(limit=20, prompt=before, sample_len=20))


def test_languages_and_their_probabilities_are_the_same(pair: Pair) -> None:
    results = pair.recognize(replace(TIMES, language=None), limit=20)
    expected = pair.decode(limit=20, language=None)
    assert_same(results, expected)
    _, probabilities = pair.theirs.detect_language(pair.encoded[:20])
    for ours, theirs, among in zip(results, expected, probabilities, strict=True):
        assert ours.language == theirs.language
        assert ours.language_probability == pytest.approx(among[ours.language], abs=PROBABILITY_TOLERANCE)


def test_openai_whisper_writes_what_we_do_from_the_sound_itself(pair: Pair) -> None:
    """With its own log-mel, padded as it pads it, and its own encoder."""
    from whisper import DecodingOptions, log_mel_spectrogram, pad_or_trim

    waveforms = [one.waveform for one in speak_timed(10, voices=UNSEEN_VOICES, max_s=9.5, seed=6)]
    sounding = [log_mel_spectrogram(one, padding=480_000)[:, : len(one) // 160] for one in waveforms]
    mel = torch.stack([pad_or_trim(one, 3_000) for one in sounding])
    options = DecodingOptions(language="en", fp16=False, suppress_tokens=[-1, *LANGUAGE_IDS])
    assert_same(pair.ours.recognize(waveforms, [TIMES] * 10), pair.theirs.decode(mel, options))
