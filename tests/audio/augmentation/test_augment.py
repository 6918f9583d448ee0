import hashlib
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile

from sottovoce.audio.augmentation.augment import (
    AugmentConfig,
    Augmenter,
    Changes,
    limit_band,
    utterance_generator,
)
from sottovoce.audio.augmentation.codec import Codec
from sottovoce.audio.decode import read_audio

NOISE = np.random.default_rng(0).normal(0.0, 0.1, 16_000).astype(np.float32)
TONE = (0.3 * np.sin(np.arange(16_000) * 0.1)).astype(np.float32)
LIMIT = 32_000
IDS = [f"utterance-{i}" for i in range(12)]


def augment(config: AugmentConfig, waveform: np.ndarray = TONE, *, utterance_id: str = "a") -> np.ndarray:
    return Augmenter(config).augment(waveform, seed=0, epoch=0, utterance_id=utterance_id, max_num_samples=LIMIT)


def draws(config: AugmentConfig, number: int = 200) -> Iterator[Changes]:
    augmenter = Augmenter(config)
    return (augmenter.draw(seed=0, epoch=0, utterance_id=f"utterance-{i}") for i in range(number))


def ratio_db(signal: np.ndarray, other: np.ndarray) -> float:
    powers = [float(np.mean(np.square(one, dtype=np.float64))) for one in (signal, other)]
    return float(10 * np.log10(powers[0] / powers[1]))


def energy_between(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    frequencies = np.fft.rfftfreq(len(waveform), 1 / 16_000)
    return float((np.abs(np.fft.rfft(waveform)) ** 2)[(frequencies > low_hz) & (frequencies < high_hz)].sum())


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with three recorded noises and a room, at rates of their own."""
    generator = np.random.default_rng(1)
    for i, rate in enumerate((8_000, 16_000, 44_100)):
        soundfile.write(tmp_path / f"noise-{i}.wav", generator.normal(0.0, 0.1, (i + 1) * rate), rate)
    return tmp_path


@pytest.fixture
def everything(recordings: Path) -> AugmentConfig:
    """All changes, most of them to half of the utterances."""
    return AugmentConfig(
        speed_probability=0.7,
        room_probability=0.5,
        room_folder=recordings,
        noise_probability=0.5,
        background_probability=0.5,
        noise_folder=recordings,
        band_limit_probability=0.5,
        gain_probability=0.9,
        codec_probability=0.5,
        codecs=get_args(Codec),
    )


def digests(config: AugmentConfig, ids: list[str], *, seed: int = 0, epoch: int = 0) -> dict[str, str]:
    augmenter = Augmenter(config)
    return {
        utterance_id: hashlib.sha256(
            augmenter.augment(NOISE, seed=seed, epoch=epoch, utterance_id=utterance_id, max_num_samples=LIMIT).tobytes()
        ).hexdigest()
        for utterance_id in ids
    }


def test_the_default_leaves_recordings_as_they_are() -> None:
    assert np.array_equal(augment(AugmentConfig()), TONE)
    assert Augmenter(AugmentConfig()).draw(seed=0, epoch=0, utterance_id="a") == Changes()


def test_the_same_seed_epoch_and_id_give_the_same_samples_in_any_order(everything: AugmentConfig) -> None:
    forward = digests(everything, IDS)
    backward = digests(everything, IDS[::-1])
    assert forward == backward
    assert len(set(forward.values())) == len(IDS)


def test_eight_threads_that_share_an_augmenter_equal_one_thread(everything: AugmentConfig) -> None:
    augmenter = Augmenter(everything)

    def run(utterance_id: str) -> str:
        np.random.random()
        waveform = augmenter.augment(NOISE, seed=0, epoch=0, utterance_id=utterance_id, max_num_samples=LIMIT)
        return hashlib.sha256(waveform.tobytes()).hexdigest()

    with ThreadPoolExecutor(8) as executor:
        outcomes = list(executor.map(run, IDS * 4))
    expected = digests(everything, IDS)
    assert outcomes == [expected[utterance_id] for utterance_id in IDS * 4]


_OTHER_PROCESS = """
import hashlib, json, pickle, sys
import numpy as np
np.random.seed(99)
augmenter, noise, ids = pickle.load(sys.stdin.buffer)
print(json.dumps({
    one: hashlib.sha256(
        augmenter.augment(noise, seed=0, epoch=0, utterance_id=one, max_num_samples=32_000).tobytes()
    ).hexdigest()
    for one in ids
}))
"""


def digests_elsewhere(augmenter: Augmenter, root: Path) -> dict[str, str]:
    """What another process gives, with another hash seed, random state and linear algebra kernel."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", _OTHER_PROCESS],
        input=pickle.dumps((augmenter, NOISE, IDS)),
        capture_output=True,
        check=True,
        env={"PYTHONPATH": str(root / "platform"), "PYTHONHASHSEED": "7", "OPENBLAS_CORETYPE": "Prescott"},
    )
    return dict(json.loads(finished.stdout))


def test_another_process_gives_the_same_samples(everything: AugmentConfig, root: Path) -> None:
    without_scipy = everything.model_copy(update={"room_probability": 0.0, "band_limit_probability": 0.0})
    assert digests_elsewhere(Augmenter(without_scipy), root) == digests(without_scipy, IDS)


@pytest.mark.slow  # the other process imports scipy
def test_another_process_gives_the_same_rooms_and_bands(everything: AugmentConfig, root: Path) -> None:
    assert digests_elsewhere(Augmenter(everything), root) == digests(everything, IDS)


def test_global_random_states_are_neither_read_nor_changed(everything: AugmentConfig) -> None:
    expected = digests(everything, IDS)
    np.random.seed(5)
    random.seed(5)
    numpy_before, python_before = np.random.get_state(), random.getstate()
    assert digests(everything, IDS) == expected
    for before, after in zip(numpy_before, np.random.get_state(), strict=True):
        assert np.array_equal(before, after)
    assert random.getstate() == python_before


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_changes_every_utterance_otherwise(
    other: dict[str, int], everything: AugmentConfig
) -> None:
    first, second = digests(everything, IDS), digests(everything, IDS, **other)
    assert not set(first.values()) & set(second.values())


def test_ids_with_the_same_crc32_have_randomness_of_their_own() -> None:
    one, other = (utterance_generator("gain", seed=0, epoch=0, utterance_id=name) for name in ("plumless", "buckeroo"))
    assert one.random() != other.random()


def test_no_seed_and_epoch_are_mistaken_for_others_and_odd_file_names_have_randomness_too() -> None:
    keys = [
        (1, 23, "a"),
        (12, 3, "a"),
        (1, 2, "3/a"),
        (-1, 23, "a"),
        (2**70, 0, "a"),
        (0, 0, "caf\udce9.wav"),
        (0, 0, ""),
    ]
    values = {utterance_generator("gain", seed=s, epoch=e, utterance_id=name).random() for s, e, name in keys}
    assert len(values) == len(keys)


def test_switching_one_change_on_leaves_the_others_as_they_were() -> None:
    alone = AugmentConfig(speed_probability=0.5)
    both = AugmentConfig(speed_probability=0.5, gain_probability=1.0, codec_probability=1.0)
    assert [one.speed for one in draws(alone)] == [one.speed for one in draws(both)]


def test_sampled_changes_have_the_range_and_frequency_of_the_settings(everything: AugmentConfig) -> None:
    drawn = list(draws(everything, 400))
    speeds = [one.speed for one in drawn if one.speed is not None]
    gains_db = [one.gain_db for one in drawn if one.gain_db is not None]
    snrs_db = [noise.snr_db for one in drawn for noise in (one.white_noise, one.background) if noise]
    bands = [one.band_hz for one in drawn if one.band_hz]
    assert 0.9 <= min(speeds) < 0.92 < 1.08 < max(speeds) <= 1.1
    assert -6.0 <= min(gains_db) < -5.5 < 5.5 < max(gains_db) <= 6.0
    assert 10.0 <= min(snrs_db) < 11.0 < 39.0 < max(snrs_db) <= 40.0
    assert all(50.0 <= low <= 300.0 and 2_000.0 <= high <= 4_000.0 for low, high in bands)
    assert {one.codec[0] for one in drawn if one.codec} == set(get_args(Codec))
    assert all(16.0 <= one.codec[1] <= 64.0 for one in drawn if one.codec)
    assert len(speeds) == pytest.approx(0.7 * 400, abs=40)  # four standard deviations
    assert len(bands) == pytest.approx(0.5 * 400, abs=40)


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.0, 1.1, 1.25])
def test_speed_changes_the_length_by_its_factor_and_the_pitch_with_it(speed: float) -> None:
    faster = augment(AugmentConfig(speed_probability=1.0, min_speed=speed, max_speed=speed))
    assert len(faster) == pytest.approx(16_000 / speed, abs=2)
    loudest_hz = np.abs(np.fft.rfft(faster)).argmax() * 16_000 / len(faster)
    assert loudest_hz == pytest.approx(speed * 0.1 * 16_000 / (2 * np.pi), rel=0.01)


def test_speech_is_slowed_only_as_far_as_the_models_context_allows() -> None:
    augmenter = Augmenter(AugmentConfig(speed_probability=1.0, min_speed=0.8, max_speed=0.8))
    slowed, full, beyond = (
        augmenter.augment(waveform, seed=0, epoch=0, utterance_id="a", max_num_samples=17_000)
        for waveform in (TONE, np.resize(TONE, 17_000), np.resize(TONE, 20_000))
    )
    assert len(slowed) == pytest.approx(17_000, abs=1)
    assert len(full) <= 17_000
    assert np.abs(full - np.resize(TONE, 17_000)[: len(full)]).max() < 1e-3  # already as long as it may be: as it was
    assert len(beyond) == 17_000


def test_no_change_makes_speech_longer_than_the_context(everything: AugmentConfig) -> None:
    augmenter = Augmenter(everything)
    for utterance_id in IDS:
        for num_samples in (15_990, 16_000, 16_010):
            waveform = augmenter.augment(
                NOISE[:1].repeat(num_samples), seed=0, epoch=0, utterance_id=utterance_id, max_num_samples=16_000
            )
            assert len(waveform) <= 16_000


@pytest.mark.parametrize("kind", ["noise", "background"])
def test_noise_has_the_sampled_ratio(kind: str, recordings: Path) -> None:
    config = AugmentConfig.model_validate(
        {f"{kind}_probability": 1.0, "noise_folder": recordings, "min_snr_db": 3.0, "max_snr_db": 30.0}
    )
    augmenter = Augmenter(config)
    for utterance_id in IDS:
        changes = augmenter.draw(seed=0, epoch=0, utterance_id=utterance_id)
        noisy = augmenter.apply(TONE, changes, max_num_samples=LIMIT)
        drawn = changes.white_noise or changes.background
        assert drawn is not None
        assert ratio_db(TONE, noisy - TONE) == pytest.approx(drawn.snr_db, abs=0.5)


def test_both_kinds_of_noise_are_measured_against_the_speech(recordings: Path) -> None:
    config = AugmentConfig(
        noise_probability=1.0, background_probability=1.0, noise_folder=recordings, min_snr_db=10.0, max_snr_db=10.0
    )
    assert ratio_db(TONE, augment(config) - TONE) == pytest.approx(7.0, abs=0.5)  # two noises of equal power


def test_white_noise_is_white() -> None:
    noise = augment(AugmentConfig(noise_probability=1.0, min_snr_db=10.0, max_snr_db=10.0)) - TONE
    low, high = energy_between(noise, 0.0, 4_000.0), energy_between(noise, 4_000.0, 8_000.0)
    assert low / high == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("gain_db", [-20.0, -3.0, 0.0, 6.0])
def test_gain_is_what_was_asked(gain_db: float) -> None:
    louder = augment(AugmentConfig(gain_probability=1.0, min_gain_db=gain_db, max_gain_db=gain_db))
    assert ratio_db(louder, TONE) == pytest.approx(gain_db, abs=0.01)


def test_overloaded_speech_is_clipped() -> None:
    louder = augment(AugmentConfig(gain_probability=1.0, min_gain_db=40.0, max_gain_db=40.0))
    assert np.abs(louder).max() == 1.0


def test_a_band_limit_removes_what_lies_outside_and_keeps_what_lies_inside() -> None:
    limited = limit_band(NOISE, 300.0, 3_400.0)
    assert limited.dtype == np.float32
    assert limited.shape == NOISE.shape

    def lost_db(low_hz: float, high_hz: float) -> float:
        return float(10 * np.log10(energy_between(NOISE, low_hz, high_hz) / energy_between(limited, low_hz, high_hz)))

    assert lost_db(0.0, 200.0) >= 20.0
    assert lost_db(4_600.0, 8_000.0) >= 20.0
    assert lost_db(450.0, 2_800.0) < 0.5


def test_the_sampled_band_is_the_band_that_is_left() -> None:
    augmenter = Augmenter(AugmentConfig(band_limit_probability=1.0))
    for utterance_id in IDS:
        changes = augmenter.draw(seed=0, epoch=0, utterance_id=utterance_id)
        assert changes.band_hz is not None
        limited = augmenter.apply(NOISE, changes, max_num_samples=LIMIT)
        beyond = 1.5 * changes.band_hz[1]
        assert energy_between(limited, beyond, 8_000.0) < 0.01 * energy_between(NOISE, beyond, 8_000.0)


def test_a_band_limit_is_scipys_butterworth_filter() -> None:
    from scipy.signal import butter, sosfilt

    sections = butter(8, [300.0, 3_400.0], btype="bandpass", fs=16_000, output="sos")
    assert np.abs(limit_band(NOISE, 300.0, 3_400.0) - sosfilt(sections, NOISE)).max() < 1e-6


@pytest.mark.parametrize("codec", get_args(Codec))
def test_a_codec_changes_the_samples_and_not_their_number(codec: Codec) -> None:
    heard = augment(AugmentConfig(codec_probability=1.0, codecs=(codec,)))
    assert heard.shape == TONE.shape
    assert not np.array_equal(heard, TONE)
    assert np.corrcoef(heard, TONE)[0, 1] > 0.8  # AMR is made for speech, and this is a tone


def test_every_outcome_is_float32_in_range(everything: AugmentConfig) -> None:
    for utterance_id in IDS:
        heard = augment(everything, np.clip(NOISE * 20, -1.0, 1.0), utterance_id=utterance_id)
        assert heard.dtype == np.float32
        assert np.abs(heard).max() <= 1.0
        assert np.isfinite(heard).all()


def all_on(recordings: Path, codec: Codec) -> AugmentConfig:
    changes = ("speed", "room", "noise", "background", "band_limit", "gain", "codec")
    probabilities = {f"{change}_probability": 1.0 for change in changes}
    return AugmentConfig.model_validate(
        {**probabilities, "noise_folder": recordings, "room_folder": recordings, "codecs": (codec,)}
    )


@pytest.mark.parametrize("codec", get_args(Codec))
def test_empty_speech_stays_empty_and_silence_and_a_single_sample_finite(codec: Codec, recordings: Path) -> None:
    config = all_on(recordings, codec)
    assert augment(config, np.zeros(0, np.float32)).shape == (0,)
    assert np.isfinite(augment(config, np.zeros(4_000, np.float32))).all()
    assert np.isfinite(augment(config, np.full(1, 0.5, np.float32))).all()


def test_real_speech_goes_through_all_changes(recordings: Path, shared_data: Path) -> None:
    speech = read_audio(shared_data / "jfk.flac", duration_s=2.0)
    heard = augment(all_on(recordings, "opus"), speech)
    assert heard.dtype == np.float32
    assert np.abs(heard).max() <= 1.0
    assert heard.std() > 0.001


def test_the_given_waveform_is_never_written_to(everything: AugmentConfig) -> None:
    frozen = NOISE.copy()
    frozen.setflags(write=False)
    for utterance_id in IDS:
        augment(everything, frozen, utterance_id=utterance_id)
    assert np.array_equal(frozen, NOISE)


def test_a_folder_nobody_asks_for_need_not_be_there(tmp_path: Path) -> None:
    assert np.array_equal(augment(AugmentConfig(noise_folder=tmp_path / "nowhere")), TONE)


def test_audiomentations_and_scipy_load_only_when_they_are_needed(root: Path) -> None:
    program = (
        "import sys, numpy as np; from sottovoce.audio.augmentation.augment import AugmentConfig, Augmenter;"
        "config = AugmentConfig(speed_probability=1, noise_probability=1, gain_probability=1, codec_probability=1);"
        "Augmenter(config).augment("
        "np.ones(1600, np.float32), seed=0, epoch=0, utterance_id='a', max_num_samples=3200);"
        "sys.exit(any(name in sys.modules for name in ('audiomentations', 'scipy', 'librosa', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, env={"PYTHONPATH": str(root / "platform")})
    assert done.returncode == 0
