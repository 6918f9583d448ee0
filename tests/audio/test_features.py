import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from sottovoce.audio.features import log_mel, log_mel_batch
from sottovoce.errors import ContextError, UnsupportedMelBinsError

TOLERANCE = 1e-4  # the project's promise; float32 against Hugging Face's float64
CONTEXT = 480_000  # samples Hugging Face pads to
SHORT_CONTEXT = 32_000  # the same edges at a context that is quick to compute
EDGES = (0, 1, 79, 80, 159, 160, 161, 200, 399, 400, 401)


def _speech_like(num_samples: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    time = np.arange(num_samples) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 3 * time))
    return (tone + 0.01 * generator.standard_normal(num_samples)).astype(np.float32)


def _impulse_at(index: int) -> np.ndarray:
    waveform = np.zeros(CONTEXT, dtype=np.float32)
    waveform[index] = 1.0
    return waveform


SIGNALS = {
    "zeros": np.zeros(CONTEXT, dtype=np.float32),
    "a constant": np.full(CONTEXT, 0.5, dtype=np.float32),
    "a full-scale square wave": np.sign(np.sin(2 * np.pi * 440 * np.arange(CONTEXT) / 16_000)).astype(np.float32),
    "an impulse at the very end": _impulse_at(CONTEXT - 1),
    "an impulse the end reflects": _impulse_at(CONTEXT - 30),
    "an impulse at the start": _impulse_at(0),
    "an impulse at the end of a short waveform": _impulse_at(50_000)[:50_001],
    "very quiet speech": 1e-6 * _speech_like(90_000),
    "the smallest PCM": np.where(_speech_like(90_000) > 0, 1 / 32_768, -1 / 32_768).astype(np.float32),
}


def _hugging_face(waveform: np.ndarray, num_mel_bins: int, num_samples: int = CONTEXT) -> np.ndarray:
    """Call the path Hugging Face takes without torch."""
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)
    padded = np.pad(waveform, (0, num_samples - waveform.shape[0]))
    return extractor._np_extract_fbank_features(padded[None], "cpu")[0]


def _hugging_face_torch(waveform: np.ndarray, num_mel_bins: int) -> np.ndarray:
    """Call the extractor as users do; with torch installed it takes torch's path."""
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)
    return extractor(waveform, sampling_rate=16_000, return_tensors="np")["input_features"][0]


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("num_samples", [*EDGES, *(SHORT_CONTEXT - edge for edge in EDGES)])
def test_log_mel_equals_hugging_face_at_every_edge(num_mel_bins: int, num_samples: int) -> None:
    waveform = _speech_like(num_samples)
    ours = log_mel(waveform, num_mel_bins=num_mel_bins, num_frames=SHORT_CONTEXT // 160)
    assert ours.shape == (num_mel_bins, 200)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, _hugging_face(waveform, num_mel_bins, SHORT_CONTEXT), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("num_samples", [1, 80_000, CONTEXT - 1, CONTEXT])
def test_log_mel_at_thirty_seconds_equals_both_paths_of_hugging_face(num_mel_bins: int, num_samples: int) -> None:
    waveform = _speech_like(num_samples)
    ours = log_mel(waveform, num_mel_bins=num_mel_bins, num_frames=3_000)
    np.testing.assert_allclose(ours, _hugging_face(waveform, num_mel_bins), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(ours, _hugging_face_torch(waveform, num_mel_bins), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("signal", SIGNALS)
def test_log_mel_of_extreme_signals_equals_hugging_face(signal: str) -> None:
    ours = log_mel(SIGNALS[signal], num_mel_bins=80, num_frames=3_000)
    np.testing.assert_allclose(ours, _hugging_face(SIGNALS[signal], 80), atol=TOLERANCE, rtol=0)


def test_log_mel_of_real_speech_equals_hugging_face(shared_data) -> None:
    import soundfile

    recording, rate = soundfile.read(shared_data / "jfk.flac", dtype="float32", always_2d=True)
    waveform = recording.mean(axis=1)[:: rate // 16_000][:CONTEXT]
    for num_mel_bins in (80, 128):
        ours = log_mel(waveform, num_mel_bins=num_mel_bins, num_frames=3_000)
        np.testing.assert_allclose(ours, _hugging_face(waveform, num_mel_bins), atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(ours, _hugging_face_torch(waveform, num_mel_bins), atol=TOLERANCE, rtol=0)


def test_speech_that_fills_a_context_of_one_frame_has_a_spectrogram() -> None:
    waveform = _speech_like(160)
    expected = _hugging_face(waveform, 80, 160)
    np.testing.assert_allclose(log_mel(waveform, num_mel_bins=80, num_frames=1), expected, atol=TOLERANCE, rtol=0)


def test_trimmed_frames_equal_the_first_padded_frames() -> None:
    waveform = _speech_like(32_000)
    trimmed = log_mel(waveform, num_mel_bins=80, num_frames=300)
    padded = log_mel(waveform, num_mel_bins=80, num_frames=3_000)
    np.testing.assert_allclose(trimmed, padded[:, :300], atol=1e-6)


def test_frames_after_speech_are_one_constant() -> None:
    spectrogram = log_mel(_speech_like(16_000), num_mel_bins=80, num_frames=300)
    assert np.ptp(spectrogram[:, 102:]) == 0  # frame 101 is the last that touches speech
    assert spectrogram[0, 299] == pytest.approx(spectrogram.max() - 2, abs=1e-6)


def test_padded_frames_are_zero_and_those_of_the_speech_as_ever() -> None:
    waveform = _speech_like(16_100)
    padded = log_mel(waveform, num_mel_bins=80, num_frames=300, padding="frames")
    assert not padded[:, 100:].any()
    np.testing.assert_array_equal(padded[:, :100], log_mel(waveform, num_mel_bins=80, num_frames=300)[:, :100])


@pytest.mark.slow  # openai-whisper imports numba
@pytest.mark.parametrize("num_samples", [159, 160, 16_001, 90_123, CONTEXT - 161])
def test_padded_frames_are_those_of_openai_whisper(num_samples: int) -> None:
    import whisper

    waveform = _speech_like(num_samples)
    content = whisper.log_mel_spectrogram(waveform, padding=CONTEXT)[:, : num_samples // 160]
    expected = whisper.pad_or_trim(content, 3_000).numpy()
    ours = log_mel(waveform, num_mel_bins=80, num_frames=3_000, padding="frames")
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)


def test_a_strided_waveform_of_doubles_has_the_spectrogram_of_its_copy() -> None:
    stereo = np.repeat(_speech_like(100_000).astype(np.float64)[:, None], 2, axis=1)
    copied = log_mel(stereo[:, 1].astype(np.float32), num_mel_bins=80, num_frames=700)
    np.testing.assert_array_equal(log_mel(stereo[:, 1], num_mel_bins=80, num_frames=700), copied)


def test_not_a_number_shows_in_the_whole_spectrogram() -> None:
    waveform = _speech_like(16_000)
    waveform[8_000] = np.nan
    assert np.isnan(log_mel(waveform, num_mel_bins=80, num_frames=100)).all()


def test_a_batch_equals_its_waveforms_one_by_one() -> None:
    waveforms = [_speech_like(num_samples) for num_samples in (48_000, 1, 0, 31_999, 20_000)]
    batch = log_mel_batch(waveforms, num_mel_bins=80, num_frames=300)
    assert batch.shape == (5, 80, 300)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    for waveform, spectrogram in zip(waveforms, batch, strict=True):
        np.testing.assert_array_equal(spectrogram, log_mel(waveform, num_mel_bins=80, num_frames=300))


def test_a_batch_of_nothing_has_no_spectrograms() -> None:
    assert log_mel_batch([], num_mel_bins=80, num_frames=300).shape == (0, 80, 300)


def test_the_waveform_is_left_as_it_was() -> None:
    waveform = _speech_like(96_000)
    log_mel(waveform, num_mel_bins=80, num_frames=600)
    np.testing.assert_array_equal(waveform, _speech_like(96_000))


def test_speech_longer_than_the_frames_raises_context_error() -> None:
    with pytest.raises(ContextError, match="cut it into windows"):
        log_mel(np.zeros(32_001, dtype=np.float32), num_mel_bins=80, num_frames=200)


def test_unknown_number_of_mel_bins_raises_unsupported_mel_bins_error() -> None:
    with pytest.raises(UnsupportedMelBinsError, match="64"):
        log_mel(np.zeros(16_000, dtype=np.float32), num_mel_bins=64, num_frames=100)
