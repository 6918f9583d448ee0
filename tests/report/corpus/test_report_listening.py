import base64
import io

import numpy as np
import pytest
import soundfile
from report_corpus import make_utterance

from sottovoce.audio.decode import decode_audio
from sottovoce.report.corpus.listening import choose_examples, encode_sound, load_examples


def test_examples_are_spread_over_durations_and_speakers():
    utterances = [
        make_utterance(f"{i:03}", duration_s=0.5 + 0.1 * i, speaker="often" if i % 10 else f"rare {i}")
        for i in range(200)
    ]
    chosen = choose_examples(utterances)
    durations = [utterance.duration_s for utterance in chosen]
    assert len(chosen) == 10
    assert durations == sorted(durations)
    assert durations[0] < 2.5
    assert durations[-1] > 18.0
    assert len({utterance.speaker for utterance in chosen}) == 10


def test_the_choice_does_not_depend_on_the_order():
    utterances = [make_utterance(f"{i}", duration_s=1 + i % 7, speaker=f"s{i % 3}") for i in range(50)]
    assert choose_examples(utterances) == choose_examples(utterances[::-1])


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_small_corpus_is_embedded_whole(number):
    utterances = [make_utterance(f"{i}") for i in range(number)]
    assert sorted(u.id for u in choose_examples(utterances)) == [f"{i}" for i in range(number)]


def test_a_sound_survives_its_encoding(speech_like):
    waveform = speech_like[3]
    head, _, payload = encode_sound(waveform).partition(",")
    assert head == "data:audio/mpeg;base64"
    decoded = decode_audio(base64.b64decode(payload), source="example")
    assert len(payload) < 0.3 * 2 * len(waveform)  # well below 16-bit PCM
    # MP3 shifts the sound by its frame delay, which decoders mostly take back; levels stay within a tenth.
    assert abs(len(decoded) - len(waveform)) <= 2 * 1_152
    assert np.sqrt(np.mean(decoded**2)) == pytest.approx(np.sqrt(np.mean(waveform**2)), rel=0.1)


def test_without_mp3_a_sound_is_wav(speech_like, monkeypatch):
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "WAV"})
    head, _, payload = encode_sound(speech_like[0]).partition(",")
    assert head == "data:audio/wav;base64"
    assert soundfile.info(io.BytesIO(base64.b64decode(payload))).frames == len(speech_like[0])


def test_only_the_utterances_part_of_a_recording_is_embedded(speech_like, tmp_path):
    soundfile.write(tmp_path / "long.wav", speech_like[6], 16_000)
    part = make_utterance("part", audio=str(tmp_path / "long.wav"), start_s=1.0, duration_s=0.5)
    (example,), notes = load_examples([part])
    decoded = decode_audio(base64.b64decode(example.sound.partition(",")[2]), source="example")
    assert len(decoded) / 16_000 == pytest.approx(0.5, abs=0.15)
    assert notes == []


def test_an_example_that_cannot_be_decoded_any_more_is_left_out_with_a_note(speech_like, tmp_path):
    soundfile.write(tmp_path / "good.wav", speech_like[0], 16_000)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    utterances = [make_utterance(name, audio=str(tmp_path / f"{name}.wav")) for name in ("gone", "bad", "good")]
    examples, notes = load_examples(utterances)
    assert [example.utterance.id for example in examples] == ["good"]
    assert [note.partition(" is left out: ")[0] for note in notes] == ["gone", "bad"]
