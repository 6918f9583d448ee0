"""Files of a real FFmpeg through the gateway: what a transcriber is sent is what was encoded."""

import numpy as np
import pytest
from ffmpeg_files import encode, encode_to_pipe, likeness

from sottovoce.audio.waveform import from_pcm
from sottovoce.demo.speech import UNSEEN_VOICES, Voice, speak


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    return speak("Tomography of the ankle shows hypertension.", Voice(name=UNSEEN_VOICES[0]))


@pytest.mark.parametrize(
    ("name", "options", "snr_db"),
    [
        ("a.mp3", ("-b:a", "64k"), 15),
        ("a.m4a", ("-ar", "48000", "-b:a", "96k"), 15),
        ("a.webm", ("-c:a", "libopus", "-b:a", "64k"), 12),
        ("a.flac", ("-ar", "96000"), 30),
        ("a.wav", ("-c:a", "pcm_s24le", "-ar", "8000"), 5),
    ],
)
def test_a_real_file_reaches_the_transcriber_as_it_was_spoken(
    post, transcriber, spoken, tmp_path, name: str, options: tuple, snr_db: float
):
    answer = post(encode(spoken, tmp_path / name, *options))
    assert answer.status_code == 200
    (window,) = transcriber.windows
    late, found_snr_db = likeness(spoken, from_pcm(window))
    assert (abs(late) <= 1, found_snr_db > snr_db) == (True, True), (late, found_snr_db)
    assert answer.json()["usage"]["seconds"] == pytest.approx(len(spoken) / 16_000, abs=0.1)


def test_a_stream_whose_header_has_no_length_is_heard(post, transcriber, spoken):
    for container in ("wav", "flac", "adts"):
        assert post(encode_to_pipe(spoken, container)).status_code == 200
    assert all(len(window) >= len(spoken) for window in transcriber.windows)


def test_eight_channels_and_channels_against_each_other_are_heard(post, transcriber, spoken, tmp_path):
    assert post(encode(np.repeat(spoken[:, None], 8, axis=1), tmp_path / "a.m4a", "-b:a", "384k")).status_code == 200
    assert post(encode(np.stack([spoken, -spoken], axis=1), tmp_path / "a.wav")).status_code == 200
    assert likeness(spoken, from_pcm(transcriber.windows[1]))[1] > 40


def test_noise_has_no_words_and_is_sent_to_no_transcriber(post, transcriber, tmp_path):
    noise = np.random.default_rng(0).normal(scale=0.05, size=48_000).astype(np.float32)
    answer = post(encode(noise, tmp_path / "a.mp3"), response_format="verbose_json").json()
    assert (answer["text"], answer["segments"]) == ("", [])
    assert not transcriber.windows
