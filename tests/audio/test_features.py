import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from sottovoce.audio.features import log_mel
from sottovoce.errors import ContextError, UnsupportedMelBinsError

TOLERANCE = 1e-4  # the project's promise; float32 against Hugging Face's float64


def _speech_like(num_samples: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    time = np.arange(num_samples) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 3 * time))
    return (tone + 0.01 * generator.standard_normal(num_samples)).astype(np.float32)


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("num_samples", [1, 79, 80, 80_000, 79_920, 480_000])
def test_log_mel_equals_hugging_face(num_mel_bins: int, num_samples: int) -> None:
    waveform = _speech_like(num_samples)
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)
    expected = extractor(waveform, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    ours = log_mel(waveform, num_mel_bins=num_mel_bins, num_frames=3_000)
    assert ours.shape == (num_mel_bins, 3_000)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


def test_log_mel_of_real_speech_equals_hugging_face(shared_data) -> None:
    import soundfile

    recording, rate = soundfile.read(shared_data / "jfk.flac", dtype="float32", always_2d=True)
    waveform = recording.mean(axis=1)[:: rate // 16_000][:480_000]
    expected = WhisperFeatureExtractor()(waveform, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(log_mel(waveform, num_mel_bins=80, num_frames=3_000), expected, atol=TOLERANCE)


def test_trimmed_frames_equal_the_first_padded_frames() -> None:
    waveform = _speech_like(32_000)
    trimmed = log_mel(waveform, num_mel_bins=80, num_frames=300)
    padded = log_mel(waveform, num_mel_bins=80, num_frames=3_000)
    np.testing.assert_allclose(trimmed, padded[:, :300], atol=TOLERANCE)


def test_speech_longer_than_the_frames_raises_context_error() -> None:
    with pytest.raises(ContextError, match="cut it into windows"):
        log_mel(np.zeros(32_001, dtype=np.float32), num_mel_bins=80, num_frames=200)


def test_unknown_number_of_mel_bins_raises_unsupported_mel_bins_error() -> None:
    with pytest.raises(UnsupportedMelBinsError, match="64"):
        log_mel(np.zeros(16_000, dtype=np.float32), num_mel_bins=64, num_frames=100)
