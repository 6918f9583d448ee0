from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.audio.augmentation.conditions import (
    CONDITIONS,
    KINDS,
    Condition,
    Level,
    check_conditions,
    perturb,
    select_conditions,
)
from sottovoce.audio.augmentation.distortions import Scene
from sottovoce.errors import ConfigError
from sottovoce.schema import SAMPLING_RATE, Utterance, Waveform

NUM_SAMPLES = SAMPLING_RATE


@cache
def speech(pitch_hz: float) -> Waveform:
    """A second that swells and fades, with harmonics up to 7 kHz."""
    time_s = np.arange(NUM_SAMPLES) / SAMPLING_RATE
    harmonics = np.arange(1, int(7_000 / pitch_hz) + 1)
    tone = np.sin(2 * np.pi * pitch_hz * harmonics[:, None] * time_s).sum(axis=0) / len(harmonics)
    waveform: Waveform = (tone * np.sin(np.pi * time_s)).astype(np.float32)
    waveform.setflags(write=False)
    return waveform


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Eight voices of different pitch."""
    rows = []
    for index in range(8):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, speech(100.0 + 30.0 * index), SAMPLING_RATE)
        rows.append(Utterance(id=f"u{index}", audio=str(path), duration_s=1.0, text="ah", speaker=f"s{index}"))
    return rows


def level_of(condition: str, name: str) -> Level:
    return next(level for level in CONDITIONS[condition].levels if level.name == name)


def distort(condition: str, name: str, utterances: Sequence[Utterance], *, seed: int = 0) -> Waveform:
    scene = Scene(utterance=utterances[0], others=utterances, seed=seed)
    return perturb(speech(100.0), level_of(condition, name), scene)


def power_db(waveform: Waveform) -> float:
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64))))


def energy_above(waveform: Waveform, hertz: float) -> float:
    return float(np.square(np.abs(np.fft.rfft(waveform)))[int(hertz) :].sum())  # bins of 1 Hz


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_every_level_is_sound_in_range_and_the_same_twice(condition: Condition, utterances: list[Utterance]) -> None:
    assert len({level.name for level in condition.levels}) == len(condition.levels) > 1
    for level in condition.levels:
        once = distort(condition.name, level.name, utterances)
        assert once.dtype == np.float32
        assert np.isfinite(once).all()
        assert 0.0 < np.abs(once).max() <= 1.0
        assert once.tobytes() == distort(condition.name, level.name, utterances).tobytes()
        assert not np.array_equal(once, speech(100.0))
        assert condition.kind == "speed" or len(once) == NUM_SAMPLES


@pytest.mark.parametrize("condition", ["white_noise", "pink_noise", "babble"])
def test_noise_has_the_ratio_that_its_level_says_and_differs_in_the_amount_alone(
    condition: str, utterances: list[Utterance]
) -> None:
    soft, loud = (distort(condition, name, utterances) - speech(100.0) for name in ("20 dB", "10 dB"))
    assert power_db(speech(100.0)) - power_db(loud) == pytest.approx(10.0, abs=0.01)
    assert np.allclose(loud, soft * 10**0.5, atol=1e-5)


def test_noise_follows_from_the_seed_and_the_utterance(utterances: list[Utterance]) -> None:
    level = level_of("white_noise", "10 dB")
    first, other = (perturb(speech(100.0), level, Scene(utterance=one)) for one in utterances[:2])
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, distort("white_noise", "10 dB", utterances, seed=1))


def test_noise_that_is_louder_than_full_scale_is_scaled_down_and_not_clipped(utterances: list[Utterance]) -> None:
    loud = perturb(speech(100.0), level_of("white_noise", "-5 dB"), Scene(utterance=utterances[0]))
    assert np.count_nonzero(np.abs(loud) >= 1.0) <= 1


def test_pink_noise_has_equal_power_in_octaves(utterances: list[Utterance]) -> None:
    noise = distort("pink_noise", "0 dB", utterances) - speech(100.0)
    low, high = energy_above(noise, 250) - energy_above(noise, 1_000), energy_above(noise, 1_000)
    high -= energy_above(noise, 4_000)
    assert low / high == pytest.approx(1.0, rel=0.25)


def test_babble_holds_neither_the_utterance_nor_texts_without_speech(utterances: list[Utterance]) -> None:
    """The pitch of each of the other voices is in it, and that of the utterance itself is not."""
    silent = [one.model_copy(update={"id": f"{one.id}-silent", "text": ""}) for one in utterances[:1]]
    babble = distort("babble", "10 dB", [*utterances, *silent]) - speech(100.0)
    spectrum = np.abs(np.fft.rfft(babble))
    pitches = [spectrum[100 + 30 * index - 2 : 100 + 30 * index + 3].max() for index in range(8)]
    assert min(sorted(pitches[1:])[1:]) > 5 * pitches[0]  # six of the seven others


def test_a_room_keeps_the_power_and_the_first_sample_in_place(utterances: list[Utterance]) -> None:
    click = np.zeros(NUM_SAMPLES, np.float32)
    click[1_000] = 0.5
    wet = perturb(click, level_of("room", "0.6 s"), Scene(utterance=utterances[0]))
    assert np.abs(wet[:990]).max() < 1e-6
    assert int(np.abs(wet).argmax()) == 1_000
    assert power_db(wet) == pytest.approx(power_db(click), abs=0.01)
    decay = [power_db(wet[1_000 + start : 1_000 + start + 800]) for start in (1_600, 6_400)]
    assert decay[0] - decay[1] == pytest.approx(60 * 0.3 / 0.6, abs=3)  # 0.3 s of a reverberation time of 0.6 s


def test_bandwidths_remove_what_lies_above_and_keep_what_lies_below(utterances: list[Utterance]) -> None:
    for name, hertz in (("6 kHz", 6_000), ("4 kHz", 4_000), ("3 kHz", 3_000), ("0.3-3.4 kHz", 3_400)):
        narrow = distort("bandwidth", name, utterances)
        assert energy_above(narrow, 1.2 * hertz) < 0.02 * energy_above(speech(100.0), 1.2 * hertz)
        kept = energy_above(narrow, 500) - energy_above(narrow, 0.8 * hertz)
        before = energy_above(speech(100.0), 500) - energy_above(speech(100.0), 0.8 * hertz)
        assert kept == pytest.approx(before, rel=0.1)


def test_speed_changes_the_duration_also_of_speech_longer_than_a_model_reads(utterances: list[Utterance]) -> None:
    long, scene = np.tile(speech(100.0), 31), Scene(utterance=utterances[0])
    for level in CONDITIONS["speed"].levels:
        assert len(perturb(long, level, scene)) == pytest.approx(len(long) / float(level.name), abs=1)


def test_the_levels_of_loudness_are_those_named_and_silence_stays_silent(utterances: list[Utterance]) -> None:
    assert np.abs(distort("gain", "-40 dBFS", utterances)).max() == pytest.approx(0.01, rel=1e-3)
    clipped = [np.mean(np.abs(distort("clipping", name, utterances)) == 1.0) for name in ("6 dB", "24 dB")]
    assert 0.0 < clipped[0] < clipped[1]
    silence = np.zeros(NUM_SAMPLES, np.float32)
    for name in ("gain", "clipping", "white_noise", "room"):
        level = CONDITIONS[name].levels[0]
        assert not perturb(silence, level, Scene(utterance=utterances[0], others=utterances)).any()


def test_conditions_are_chosen_by_kind_or_name_in_the_tables_order() -> None:
    assert [one.name for one in select_conditions(["room,noise", " babble"])] == [
        "white_noise", "pink_noise", "babble", "room",
    ]  # fmt: skip
    assert select_conditions(KINDS) == tuple(CONDITIONS.values())


@pytest.mark.parametrize("names", [["noise,codecs"], ["loudness"], ["Noise"]])
def test_a_condition_that_does_not_exist_is_refused_with_those_that_do(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"is no condition; choose among noise, bandwidth, .*: white_noise, .*mp3"):
        select_conditions(names)


def test_no_condition_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="perturb names no condition; choose among noise"):
        select_conditions([" , "])


def test_too_few_recordings_for_babble_are_refused_before_anything_is_scored(utterances: list[Utterance]) -> None:
    check_conditions(tuple(CONDITIONS.values()), utterances[:4])
    with pytest.raises(ConfigError, match=r"babble is made from at least 3 other .* the 3 utterances .* too few"):
        check_conditions(select_conditions(["babble"]), utterances[:3])
    check_conditions(select_conditions(["white_noise"]), utterances[:1])


def test_babble_from_silent_recordings_is_refused(utterances: list[Utterance]) -> None:
    for one in utterances[1:]:
        soundfile.write(one.audio, np.zeros(NUM_SAMPLES), SAMPLING_RATE)
    with pytest.raises(ConfigError, match=r"babble around u0 has 0 of 3 other recordings with speech"):
        distort("babble", "10 dB", utterances)


def test_a_codec_that_pyav_lacks_is_refused_before_anything_is_scored(
    monkeypatch: pytest.MonkeyPatch, utterances: list[Utterance]
) -> None:
    from sottovoce.audio.augmentation import codec

    lacking = {**codec._ENCODERS, "opus": codec._Encoder(name="no such encoder", container="ogg")}
    monkeypatch.setattr(codec, "_ENCODERS", lacking)
    with pytest.raises(ConfigError, match="codec 'opus' needs the encoder 'no such encoder'"):
        check_conditions(select_conditions(["opus"]), utterances)
