from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.audio.augmentation.ambience import list_recordings, noise_at_snr, read_noise, read_room, reverberate
from sottovoce.errors import ConfigError

RANDOM = np.random.default_rng(0)
SPEECH = (0.2 * RANDOM.standard_normal(8_000)).astype(np.float32)


def write(path: Path, waveform: np.ndarray, *, rate: int = 16_000) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, subtype="PCM_16")
    return str(path)


def ramp(num_samples: int, *, step: float) -> np.ndarray:
    return (np.arange(1, num_samples + 1) * step).astype(np.float32)


def test_recordings_are_found_below_the_folder_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["b.wav", "a/z.FLAC", "c.wav"]
    paths = [write(tmp_path / name, SPEECH) for name in names]
    (tmp_path / "notes.txt").write_text("not a recording")
    assert list_recordings(tmp_path, setting="noise_folder") == (paths[1], paths[0], paths[2])


def test_a_folder_that_is_missing_or_empty_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"noise_folder '.*nowhere' is no folder"):
        list_recordings(tmp_path / "nowhere", setting="noise_folder")
    with pytest.raises(ConfigError, match=r"room_folder .* holds no recordings"):
        list_recordings(tmp_path, setting="room_folder")


def test_a_piece_of_a_long_recording_begins_at_its_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", ramp(20_000, step=1 / 32_768))
    first, middle = (read_noise([path], choice=0.0, offset=offset, num_samples=4_000) for offset in (0.0, 0.5))
    assert first == pytest.approx(ramp(20_000, step=1 / 32_768)[:4_000], abs=1e-4)
    assert middle == pytest.approx(ramp(20_000, step=1 / 32_768)[8_000:12_000], abs=1e-4)


def test_a_short_recording_is_repeated_from_its_offset_on(tmp_path: Path) -> None:
    short = ramp(100, step=0.005)
    noise = read_noise([write(tmp_path / "short.wav", short)], choice=0.0, offset=0.25, num_samples=1_050)
    assert noise == pytest.approx(np.resize(np.roll(short, -25), 1_050), abs=1e-4)


def test_a_recording_whose_header_libsndfile_does_not_know_is_read_too(tmp_path: Path) -> None:
    import av

    path = tmp_path / "noise.webm"
    with av.open(path, "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            RANDOM.normal(0.0, 0.1, (1, 48_000)).astype(np.float32), format="flt", layout="mono"
        )
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    pieces = [read_noise([str(path)], choice=0.0, offset=offset, num_samples=4_000) for offset in (0.1, 0.9)]
    assert all(len(piece) == 4_000 and piece.std() > 0.03 for piece in pieces)
    assert not np.array_equal(*pieces)


def test_a_damaged_or_silent_recording_is_replaced_by_the_next_and_the_damaged_one_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "damaged.wav").write_bytes(b"RIFF, but nothing else")
    silent = write(tmp_path / "silent.wav", np.zeros(9_000, np.float32))
    good = write(tmp_path / "good.wav", SPEECH)
    recordings = [str(tmp_path / "gone.wav"), str(tmp_path / "damaged.wav"), silent, good]
    noise = read_noise(recordings, choice=0.0, offset=0.0, num_samples=4_000)
    assert noise == pytest.approx(SPEECH[:4_000], abs=1e-4)
    read_noise(recordings, choice=0.0, offset=0.0, num_samples=4_000)
    named = [record.getMessage() for record in caplog.records]
    assert len(named) == 2  # once each, however often they are drawn
    assert "gone.wav" in named[0]
    assert "damaged.wav" in named[1]


def test_a_folder_of_silence_is_an_error_and_no_noise(tmp_path: Path) -> None:
    recordings = [write(tmp_path / f"{i}.wav", np.zeros(9_000, np.float32)) for i in range(3)]
    with pytest.raises(ConfigError, match=r"none of 3 recordings from .*2\.wav on can be used"):
        read_noise(recordings, choice=0.99, offset=0.0, num_samples=100)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.5, 40.0])
def test_noise_is_scaled_to_the_ratio(snr_db: float) -> None:
    noise = noise_at_snr(RANDOM.standard_normal(8_000).astype(np.float32), SPEECH, snr_db=snr_db)
    assert noise.dtype == np.float32
    assert 10 * np.log10(np.mean(SPEECH**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.01)


def test_a_room_begins_with_its_direct_sound_so_speech_stays_in_time(tmp_path: Path) -> None:
    response = np.zeros(3_000, np.float32)
    response[400], response[1_400] = 0.8, 0.4  # 25 ms of distance, and an echo 62.5 ms later
    room = read_room([write(tmp_path / "room.wav", response)], choice=0.0)
    assert len(room) == 2_600
    click = np.zeros(8_000, np.float32)
    click[1_000] = 0.5
    heard = reverberate(click, room)
    assert heard.dtype == np.float32
    assert np.flatnonzero(np.abs(heard) > 0.01).tolist() == [1_000, 2_000]
    assert heard[2_000] / heard[1_000] == pytest.approx(0.5, abs=0.01)


def test_a_room_leaves_length_and_loudness_as_they_were() -> None:
    response = (RANDOM.standard_normal(4_000) * np.exp(-np.arange(4_000) / 800)).astype(np.float32)
    heard = reverberate(SPEECH, response)
    assert len(heard) == len(SPEECH)
    assert heard.std() == pytest.approx(SPEECH.std(), rel=0.02)
    assert not reverberate(np.zeros(100, np.float32), response).any()


@pytest.mark.slow  # imports librosa
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what librosa imports
def test_background_noise_is_mixed_as_audiomentations_does(tmp_path: Path) -> None:
    from audiomentations import AddBackgroundNoise

    path = write(tmp_path / "noise.wav", (0.3 * RANDOM.standard_normal(20_000)).astype(np.float32))
    theirs = AddBackgroundNoise(sounds_path=path, p=1.0)
    theirs.parameters = {"should_apply": True, "snr_db": 7.0, "noise_file_path": path, "offset": 0.375, "duration": 0.5}
    theirs.freeze_parameters()
    noise = read_noise([path], choice=0.0, offset=0.5, num_samples=8_000)  # 0.5 of the 0.75 s of possible starts
    ours = SPEECH + noise_at_snr(noise, SPEECH, snr_db=7.0)
    assert np.abs(ours - theirs(SPEECH, 16_000)).max() < 1e-4  # a step of 16-bit PCM is 3e-5


@pytest.mark.slow  # imports librosa
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what librosa imports
def test_a_room_sounds_as_audiomentations_makes_it_but_for_level_and_delay(tmp_path: Path) -> None:
    from audiomentations import ApplyImpulseResponse

    response = (0.1 * RANDOM.standard_normal(3_000) * np.exp(-np.arange(3_000) / 500)).astype(np.float32)
    response[0] = 0.9  # no delay
    path = write(tmp_path / "room.wav", response)
    theirs = ApplyImpulseResponse(ir_path=path, p=1.0, leave_length_unchanged=True)
    theirs.parameters = {"should_apply": True, "ir_file_path": path}
    theirs.freeze_parameters()
    ours, reference = reverberate(SPEECH, read_room([path], choice=0.0)), theirs(SPEECH, 16_000)
    assert np.abs(ours / ours.std() - reference / reference.std()).max() < 1e-4
