"""Transcription in this process, with a recognizer of numbered words, and with micro."""

import random
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import get_type_hints

import jiwer
import numpy as np
import pytest
import soundfile
from spoken_numbers import SpokenNumbers, TimingListener, say

from sottovoce.demo.grammar import load_grammar
from sottovoce.demo.pool import speak_sentence
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.errors import LanguageError
from sottovoce.model.audio_context import AudioContext
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import Decoding, LongFormOptions
from sottovoce.recognize.longform.transcribe import transcribe
from sottovoce.recognize.longform.window import WindowRequest
from sottovoce.schema import SAMPLING_RATE, DecodeOptions


class CountingRecognizer:
    """Locates each window in the recording, and returns its words."""

    name = "counting"
    context = AudioContext(min_s=2.0, max_s=5.0)
    languages = ("en",)
    transcribe = transcribe

    def __init__(self, spoken: SpokenNumbers) -> None:
        self.listener = TimingListener(spoken)
        self.batches: list[int] = []

    def recognize(self, windows, options):
        self.batches.append(len(windows))
        samples = self.listener.spoken.recording.samples
        requests = []
        for window, option in zip(windows, options, strict=True):
            pcm = np.round(window * 32_767).astype(np.int16)
            numbers = np.unique(pcm[pcm > 0])
            first = int(np.flatnonzero(samples == numbers[0])[0]) - int(np.flatnonzero(pcm == numbers[0])[0])
            requests.append(WindowRequest(start=first, end=first + len(pcm), options=option))
        return [self.listener.hear(request) for request in requests]


SEQUENTIAL = LongFormOptions(algorithm="sequential", skip_without_voice=False)


def test_a_file_and_a_waveform_give_the_same_transcript(tmp_path: Path):
    spoken = say(60, seed=0)
    soundfile.write(tmp_path / "numbers.wav", spoken.recording.samples, SAMPLING_RATE, subtype="PCM_16")
    of_file = CountingRecognizer(spoken).transcribe(str(tmp_path / "numbers.wav"), language="en", long_form=SEQUENTIAL)
    waveform = spoken.recording.waveform(0, spoken.recording.num_samples)
    of_waveform = CountingRecognizer(spoken).transcribe(waveform, language="en", long_form=SEQUENTIAL)
    assert of_file.text == of_waveform.text == spoken.text
    assert of_file.duration_s == pytest.approx(spoken.recording.duration_s)
    assert of_file.language == "en"
    assert of_file.segments == of_waveform.segments


def test_options_reach_every_window_and_a_bar_is_shown(capsys):
    spoken = say(20, seed=1)
    recognizer = CountingRecognizer(spoken)
    recognizer.transcribe(
        spoken.recording.waveform(0, spoken.recording.num_samples),
        prompt="Numbers.", beam_size=3, long_form=SEQUENTIAL, show_progress=True,
    )  # fmt: skip
    assert {request.options.prompt for request in recognizer.listener.requests} == {"Numbers."}
    assert {request.options.beam_size for request in recognizer.listener.requests} == {3}
    assert recognizer.listener.requests[0].options.temperatures == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert recognizer.listener.requests[0].options.language is None
    assert "transcribing" in capsys.readouterr().out


def test_keywords_of_transcribe_have_names_and_types_of_decode_options():
    keywords, fields = get_type_hints(Decoding), get_type_hints(DecodeOptions)
    assert keywords
    assert {name: fields.get(name) for name in keywords} == keywords


def test_silence_has_an_empty_transcript_in_english():
    heard = CountingRecognizer(say(1, seed=0)).transcribe(np.zeros(20 * SAMPLING_RATE, np.float32))
    assert (heard.text, heard.segments, heard.language, heard.duration_s) == ("", (), "en", 20.0)


def test_what_is_wrong_with_the_file_or_the_language_is_raised(tmp_path: Path, tiny_checkpoint: Path):
    recognizer = load_recognizer(tiny_checkpoint)
    with pytest.raises(FileNotFoundError):
        recognizer.transcribe(tmp_path / "none.wav")
    with pytest.raises(LanguageError):
        recognizer.transcribe(np.full(SAMPLING_RATE, 0.1, np.float32), language="xx", long_form=SEQUENTIAL)


def speak_for(duration_s: float, *, seed: int) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """Sentences in voices micro has not heard, each alone, and joined with pauses of 0.1 to 0.8 s."""
    generator, grammar = random.Random(seed), load_grammar("sentences")
    texts, alone, parts, num_samples = [], [], [], 0
    while num_samples < duration_s * SAMPLING_RATE:
        text, _, waveform = speak_sentence(grammar, generator, symbol="sentence", voices=UNSEEN_VOICES)
        pause = np.zeros(int(generator.uniform(0.1, 0.8) * SAMPLING_RATE), np.float32)
        texts.append(text)
        alone.append(waveform)
        parts += [pause, waveform]
        num_samples += len(pause) + len(waveform)
    return texts, alone, np.concatenate(parts)


@pytest.fixture(scope="module")
def two_minutes() -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """From a process of its own: the synthesizer's samples depend a little on what its process said before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(speak_for, 120.0, seed=5).result()


def word_error_rate(references: list[str], hypothesis: str) -> float:
    def plain(text: str) -> str:
        return " ".join(re.sub(r"[^a-z0-9' ]", " ", text.lower()).split())

    return jiwer.wer(plain(" ".join(references)), plain(hypothesis))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["chunked", "sequential"])
def test_two_minutes_of_joined_sentences_score_as_the_sentences_alone(algorithm: str, two_minutes) -> None:
    texts, alone, joined = two_minutes
    recognizer = load_recognizer("micro")
    results = recognizer.recognize(alone, [DecodeOptions()] * len(alone))
    wer_alone = word_error_rate(texts, " ".join(result.text for result in results))
    heard = recognizer.transcribe(
        joined, language="en", timestamps=False, long_form=LongFormOptions(algorithm=algorithm)
    )
    assert wer_alone < 0.05
    # Of 315 words one point is three; benchmarks/long_form.py holds one point over ten minutes.
    assert word_error_rate(texts, heard.text) <= wer_alone + 0.02
