"""Utterances are recognized as the service does or greedily, several at a time, and progress shows from the first."""

import io
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from sottovoce.audio.decode import read_audio
from sottovoce.errors import AudioDecodeError, ManifestError
from sottovoce.model.audio_context import AudioContext
from sottovoce.recognize.hypotheses import Recognition, recognize_utterances
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES, LongFormOptions
from sottovoce.recognize.longform.transcribe import transcribe
from sottovoce.recognize.scoring import score_recognizer
from sottovoce.schema import SAMPLING_RATE, Utterance, WindowResult, WindowSegment


class LoudnessRecognizer:
    """Writes the loudness of each window, so that a text says which samples were read."""

    name = "loudness"
    context = AudioContext(min_s=30.0, max_s=30.0)
    languages = ("en",)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.options: list[object] = []

    def recognize(self, windows, options):
        self.batches.append(len(windows))
        self.options.extend(options)
        return [_result(f"{np.abs(window).sum():.1f}", len(window) / SAMPLING_RATE) for window in windows]


def _result(text: str, duration_s: float) -> WindowResult:
    return WindowResult(
        text=text,
        token_ids=(1,),
        language="en",
        avg_logprob=-0.1,
        no_speech_prob=0.0,
        segments=(WindowSegment(0.0, duration_s, f" {text}", (1,)),),
    )


@pytest.fixture
def utterances(shared_data, tmp_path) -> list[Utterance]:
    """Eleven seconds of a man, its halves, 44 s of it, and a second of silence."""
    speech = read_audio(shared_data / "jfk.flac")
    parts = {
        "long": np.tile(speech, 4),
        "whole": speech,
        "first": speech[: len(speech) // 2],
        "second": speech[len(speech) // 2 :],
        "silence": np.zeros(SAMPLING_RATE),
    }
    for name, samples in parts.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, SAMPLING_RATE, subtype="FLOAT")
    return [
        Utterance(id=name, audio=str(tmp_path / f"{name}.wav"), duration_s=len(samples) / SAMPLING_RATE, text="so")
        for name, samples in parts.items()
    ]


@pytest.mark.parametrize("algorithm", ["chunked", "sequential"])
def test_recordings_that_share_batches_read_as_each_does_alone(utterances, algorithm):
    recognizer = LoudnessRecognizer()
    recognition = Recognition(decoding="service", algorithm=algorithm, batch_size=3)
    found = recognize_utterances(recognizer, utterances, recognition).texts
    long_form = LongFormOptions(algorithm=algorithm)
    alone = {
        one.id: transcribe(LoudnessRecognizer(), read_audio(one.audio), language="en", long_form=long_form).text
        for one in utterances
    }
    assert found == alone
    assert found["silence"] == ""
    assert len(found["long"].split()) > 1
    assert max(recognizer.batches) == 3


def test_the_service_falls_back_with_timestamps_and_greedy_decoding_does_not(utterances):
    service, greedy = LoudnessRecognizer(), LoudnessRecognizer()
    recognize_utterances(service, utterances[1:2], Recognition(decoding="service"))
    recognize_utterances(greedy, utterances[1:2], Recognition(decoding="greedy"))
    assert [(one.timestamps, one.temperatures) for one in service.options] == [(True, FALLBACK_TEMPERATURES)]
    assert [(one.timestamps, one.temperatures) for one in greedy.options] == [(False, (0.0,))]


def test_a_score_names_its_decoding():
    assert "sequential" in Recognition(decoding="service", algorithm="sequential").describe()
    assert Recognition(temperatures=(0.0, 0.4)).describe().startswith("greedy: temperature 0, 0.4,")


@pytest.mark.parametrize("decoding", ["service", "greedy"])
def test_every_recording_has_a_text_and_progress_shows_from_the_first_on(utterances, decoding, caplog):
    caplog.set_level(logging.INFO)
    found = recognize_utterances(LoudnessRecognizer(), utterances, Recognition(decoding=decoding, batch_size=2))
    assert set(found.texts) == {one.id for one in utterances}
    assert found.recognition_s > 0.0
    assert caplog.messages[:2] == [
        "loudness: recognizing 5 utterances",
        "loudness: recognized 1 of 5 utterances",
    ]


def test_an_unreadable_recording_is_left_out_and_named_where_asked_for(utterances, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    bad = Utterance(id="bad", audio=str(tmp_path / "bad.wav"), duration_s=1.0, text="so")
    missing = Utterance(id="missing", audio=str(tmp_path / "no.wav"), duration_s=1.0, text="so")
    found = recognize_utterances(
        LoudnessRecognizer(), [bad, missing, utterances[1]], Recognition(skips_unreadable=True)
    )
    assert set(found.texts) == {"whole"}
    assert set(found.unreadable) == {"bad", "missing"}
    with pytest.raises(AudioDecodeError):
        recognize_utterances(LoudnessRecognizer(), [bad], Recognition())
    with pytest.raises(ManifestError):
        score_recognizer(LoudnessRecognizer(), [], normalizer="basic")


def test_rows_of_parquet_are_read_in_their_own_order(tmp_path):
    sounds = []
    for level in (1, 2, 3):  # the first row is the longest
        buffer = io.BytesIO()
        soundfile.write(buffer, np.full((4 - level) * 1_600, level / 10), SAMPLING_RATE, format="WAV")
        sounds.append(buffer.getvalue())
    pq.write_table(pa.table({"audio": sounds, "text": ["a", "b", "c"]}), tmp_path / "rows.parquet", row_group_size=1)
    rows = [
        Utterance(id=str(row), audio=f"{tmp_path / 'rows.parquet'}#row={row}", duration_s=3.0 - row, text="a")
        for row in range(3)
    ]
    found = recognize_utterances(LoudnessRecognizer(), rows, Recognition())
    assert list(found.durations_s) == ["0", "1", "2"]
    assert found.durations_s == pytest.approx({"0": 0.3, "1": 0.2, "2": 0.1})
