import numpy as np
import pytest
import torch

from sottovoce.audio.features import Padding, log_mel_batch
from sottovoce.audio.waveform import from_pcm, to_pcm
from sottovoce.errors import ContextError, UnsupportedMelBinsError
from sottovoce.model.log_mel import LogMel

TOLERANCE = 1e-4  # the project's promise; both compute in float32
LENGTHS = (32_000, 31_999, 31_841, 16_000, 401, 161, 1, 0)


def _waveforms() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    time = np.arange(max(LENGTHS)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * time)
    return [(tone[:length] + 0.01 * generator.standard_normal(length)).astype(np.float32) for length in LENGTHS]


def _padded(waveforms: list[np.ndarray], padding: float = 0.0) -> torch.Tensor:
    batch = torch.full((len(waveforms), max(map(len, waveforms))), padding, dtype=torch.from_numpy(waveforms[0]).dtype)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return batch


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("num_frames", [200, 300])
@pytest.mark.parametrize("padding", ["sound", "frames"])
def test_torch_log_mel_equals_the_numpy_one(num_mel_bins: int, num_frames: int, padding: Padding) -> None:
    waveforms = _waveforms()
    expected = log_mel_batch(waveforms, num_mel_bins=num_mel_bins, num_frames=num_frames, padding=padding)
    lengths = torch.tensor(LENGTHS)
    ours = LogMel(num_mel_bins)(_padded(waveforms), lengths, num_frames=num_frames, padding=padding)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    np.testing.assert_allclose(ours.numpy(), expected, atol=TOLERANCE, rtol=0)


def test_torch_log_mel_of_real_speech_equals_the_numpy_one(shared_data) -> None:
    import soundfile

    recording, rate = soundfile.read(shared_data / "jfk.flac", dtype="float32", always_2d=True)
    waveform = recording.mean(axis=1)[:: rate // 16_000][:192_000]
    expected = log_mel_batch([waveform], num_mel_bins=80, num_frames=1_200)
    ours = LogMel(80)(_padded([waveform]), torch.tensor([len(waveform)]), num_frames=1_200)
    np.testing.assert_allclose(ours.numpy(), expected, atol=TOLERANCE, rtol=0)


def test_what_lies_beyond_a_waveform_does_not_matter() -> None:
    waveforms, log_mel = _waveforms(), LogMel(80)
    silent = log_mel(_padded(waveforms), torch.tensor(LENGTHS), num_frames=200)
    loud = log_mel(_padded(waveforms, padding=0.7), torch.tensor(LENGTHS), num_frames=200)
    assert torch.equal(silent, loud)


def test_pcm_has_the_spectrogram_of_its_waveform() -> None:
    pcm = [to_pcm(waveform) for waveform in _waveforms()]
    expected = log_mel_batch([from_pcm(one) for one in pcm], num_mel_bins=80, num_frames=200)
    ours = LogMel(80)(_padded(pcm, padding=0), torch.tensor(LENGTHS), num_frames=200)
    np.testing.assert_allclose(ours.numpy(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(precision: torch.dtype) -> None:
    waveforms, log_mel = _waveforms(), LogMel(80)
    expected = log_mel(_padded(waveforms), torch.tensor(LENGTHS), num_frames=200)
    with torch.autocast("cpu", dtype=precision):
        ours = log_mel(_padded(waveforms), torch.tensor(LENGTHS), num_frames=200)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, expected)


def test_window_and_filters_move_with_the_module_and_stay_out_of_checkpoints() -> None:
    log_mel = LogMel(80)
    assert {name for name, _ in log_mel.named_buffers()} == {"window", "filters"}
    assert log_mel.to("meta").filters.device.type == "meta"
    assert not LogMel(80).state_dict()


@pytest.mark.gpu
def test_torch_log_mel_on_a_gpu_equals_the_numpy_one() -> None:
    waveforms = _waveforms()
    expected = log_mel_batch(waveforms, num_mel_bins=128, num_frames=200)
    ours = LogMel(128).cuda()(_padded(waveforms).cuda(), torch.tensor(LENGTHS).cuda(), num_frames=200)
    np.testing.assert_allclose(ours.cpu().numpy(), expected, atol=TOLERANCE, rtol=0)


def test_speech_longer_than_the_frames_raises_context_error() -> None:
    with pytest.raises(ContextError, match="cut it into windows"):
        LogMel(80)(torch.zeros(1, 32_001), torch.tensor([32_001]), num_frames=200)


def test_unknown_number_of_mel_bins_raises_unsupported_mel_bins_error() -> None:
    with pytest.raises(UnsupportedMelBinsError, match="64"):
        LogMel(64)
