from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from sottovoce.audio.augmentation import codec as codec_module
from sottovoce.audio.augmentation.codec import Codec, pass_through_codec, require_encoder
from sottovoce.audio.decode import read_audio
from sottovoce.errors import ConfigError

CODECS: tuple[Codec, ...] = get_args(Codec)


def lag_samples(before: np.ndarray, after: np.ndarray) -> int:
    """Where the cross-correlation peaks; positive when ``after`` is late."""
    size = 2 * len(before)
    product = np.fft.rfft(before, size).conj() * np.fft.rfft(after, size)
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak if peak < len(before) else peak - size


def snr_db(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(before**2) / np.mean((after - before) ** 2)))


def energy_above(waveform: np.ndarray, frequency_hz: float) -> float:
    power = np.abs(np.fft.rfft(waveform)) ** 2
    return float(power[np.fft.rfftfreq(len(waveform), 1 / 16_000) > frequency_hz].sum())


@pytest.mark.parametrize("codec", CODECS)
def test_a_round_trip_keeps_length_and_time_and_changes_the_samples(
    codec: Codec, speech_like: list[np.ndarray]
) -> None:
    speech = speech_like[2]
    heard = pass_through_codec(speech, codec, bit_rate_kbps=16.0)
    assert heard.dtype == np.float32
    assert heard.shape == speech.shape
    assert abs(lag_samples(speech, heard)) <= 16  # 1 ms
    assert not np.array_equal(heard, speech)
    assert snr_db(speech, heard) > 0.0


@pytest.mark.parametrize("codec", CODECS)
def test_real_speech_stays_in_time(codec: Codec, shared_data: Path) -> None:
    speech = read_audio(shared_data / "jfk.flac", duration_s=3.0)
    heard = pass_through_codec(speech, codec, bit_rate_kbps=24.0)
    assert len(heard) == len(speech)
    assert abs(lag_samples(speech, heard)) <= 16
    assert snr_db(speech, heard) > 5.0


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_gives_the_same_samples_each_time(codec: Codec, speech_like: list[np.ndarray]) -> None:
    first, again = (pass_through_codec(speech_like[0], codec, bit_rate_kbps=16.0) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_samples", [1, 159, 160, 1_601])
def test_short_and_silent_and_overloaded_speech_keeps_its_length_and_stays_finite(
    codec: Codec, num_samples: int
) -> None:
    for level in (0.0, 3.0):
        heard = pass_through_codec(np.full(num_samples, level, np.float32), codec, bit_rate_kbps=16.0)
        assert len(heard) == num_samples
        assert np.isfinite(heard).all()


@pytest.mark.parametrize("codec", ["mulaw", "alaw", "amr_nb"])
def test_a_telephone_passes_nothing_above_4_khz(codec: Codec) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, 16_000).astype(np.float32)
    heard = pass_through_codec(noise, codec, bit_rate_kbps=12.2)
    assert energy_above(heard, 4_200.0) < 0.001 * energy_above(noise, 4_200.0)


@pytest.mark.parametrize("codec", ["mp3", "opus", "aac"])
def test_a_higher_bit_rate_keeps_more_and_rates_out_of_range_are_moved_into_it(
    codec: Codec, speech_like: list[np.ndarray]
) -> None:
    low, high = (pass_through_codec(speech_like[1], codec, bit_rate_kbps=rate) for rate in (0.1, 1_000.0))
    assert snr_db(speech_like[1], high) > snr_db(speech_like[1], low)


def test_a_missing_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = codec_module._Encoder(name="libnowhere", container="wav")
    monkeypatch.setitem(codec_module._ENCODERS, "opus", missing)
    with pytest.raises(ConfigError, match="codec 'opus' needs the encoder 'libnowhere'"):
        require_encoder("opus")


def test_the_installed_pyav_writes_every_codec() -> None:
    missing = [codec for codec in CODECS if not is_written(codec)]
    assert missing == []


def is_written(codec: Codec) -> bool:
    try:
        require_encoder(codec)
    except ConfigError:
        return False
    return True
