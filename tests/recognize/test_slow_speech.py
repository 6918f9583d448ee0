"""Whisper's published base model on a sentence with long pauses: every word, where it is said."""

from pathlib import Path

import numpy as np
import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.recognize.load import load_recognizer
from sottovoce.schema import SAMPLING_RATE

pytestmark = [pytest.mark.weights, pytest.mark.slow]

CUTS_S = (0.0, 2.7, 4.9, 7.85)
"""In Kennedy's own pauses, and before the first word."""
PAUSE_S = 4.0
STARTS_S = (0.33, 3.27, 5.38, 8.15)
"""Of "And", "ask", "what" and "ask", the first words of the pieces, as heard and seen in the waveform."""
TOLERANCE_S = 0.3


def test_words_between_long_pauses_are_kept_and_timed(real_weights: Path, shared_data: Path) -> None:
    speech = read_audio(shared_data / "jfk.flac")
    pieces = np.split(speech, [round(cut_s * SAMPLING_RATE) for cut_s in CUTS_S])
    noise = 0.003 * np.random.default_rng(0).standard_normal(round(PAUSE_S * SAMPLING_RATE))
    slow = np.concatenate([part for piece in pieces[1:] for part in (noise, piece)]).astype(np.float32)
    transcript = load_recognizer(real_weights).transcribe(slow, language="en", word_timestamps=True)
    words = [word for segment in transcript.segments for word in segment.words]
    texts = [word.text.strip(",.").lower() for word in words]
    spoken = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
    assert texts == spoken.split()
    first = [0, texts.index("ask"), texts.index("what"), texts.index("ask", 8)]
    expected = [start_s + number * PAUSE_S for number, start_s in enumerate(STARTS_S, start=1)]
    assert [words[number].start_s for number in first] == pytest.approx(expected, abs=TOLERANCE_S)
