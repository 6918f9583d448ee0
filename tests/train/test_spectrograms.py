from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import torch

from sottovoce.audio.augmentation.spec_augment import Masks, SpecAugmentConfig, draw_masks
from sottovoce.audio.features import log_mel
from sottovoce.errors import ContextError, UnsupportedMelBinsError
from sottovoce.schema import HOP_LENGTH, Waveform
from sottovoce.train.spectrograms import DeviceSpectrograms, Spectrograms, ThreadedSpectrograms, build_spectrograms

CPU = torch.device("cpu")
TOLERANCE = 1e-4


@pytest.fixture(params=["threads", "device"])
def spectrograms(request: pytest.FixtureRequest) -> Iterator[Spectrograms]:
    made = (
        ThreadedSpectrograms(80, num_threads=2, padding="frames")
        if request.param == "threads"
        else DeviceSpectrograms(80, CPU, padding="frames")
    )
    with closing(made):
        yield made


@pytest.fixture(scope="module")
def waveforms() -> list[Waveform]:
    generator = np.random.default_rng(0)
    return [generator.normal(0.0, 0.1, size).astype(np.float32) for size in (32_000, 20_000, 0, 1)]


def masks_for(waveforms: list[Waveform]) -> list[Masks]:
    config = SpecAugmentConfig(num_time_masks=2, max_time_mask_fraction=0.2, num_mel_masks=2)
    return [
        draw_masks(config, seed=0, epoch=0, utterance_id=str(i), num_frames=len(one) // HOP_LENGTH, num_mel_bins=80)
        for i, one in enumerate(waveforms)
    ]


def test_spectrograms_are_those_of_the_recognizers(spectrograms: Spectrograms, waveforms: list[Waveform]) -> None:
    drawn = spectrograms.compute(waveforms, num_frames=200)
    expected = np.stack([log_mel(one, num_mel_bins=80, num_frames=200, padding="frames") for one in waveforms])
    assert drawn.shape == (4, 80, 200)
    assert drawn.dtype == torch.float32
    np.testing.assert_allclose(drawn.numpy(), expected, atol=TOLERANCE)


def test_threads_and_device_mask_the_same_cells_with_the_same_value(waveforms: list[Waveform]) -> None:
    masks = masks_for(waveforms)
    with closing(ThreadedSpectrograms(80, num_threads=2, padding="frames")) as threaded:
        expected = threaded.compute(waveforms, num_frames=200, masks=masks)
    drawn = DeviceSpectrograms(80, CPU, padding="frames").compute(waveforms, num_frames=200, masks=masks)
    plain = DeviceSpectrograms(80, CPU, padding="frames").compute(waveforms, num_frames=200)
    np.testing.assert_allclose(drawn.numpy(), expected.numpy(), atol=TOLERANCE)
    assert (drawn[:2] != plain[:2]).any(dim=2).any(dim=1).all()
    assert torch.equal(drawn[1, :, 125:], plain[1, :, 125:])  # 1.25 s of speech: the padding stays as it is


def test_longer_speech_than_frames_is_an_error_in_both(spectrograms: Spectrograms, waveforms: list[Waveform]) -> None:
    with pytest.raises(ContextError):
        spectrograms.compute(waveforms, num_frames=100)


def test_a_cpu_computes_spectrograms_in_threads() -> None:
    with closing(build_spectrograms(CPU, num_mel_bins=128, num_threads=1, padding="frames")) as made:
        assert isinstance(made, ThreadedSpectrograms)
        assert made.num_mel_bins == 128


def test_a_bin_count_no_whisper_uses_is_refused() -> None:
    with pytest.raises(UnsupportedMelBinsError):
        DeviceSpectrograms(81, CPU, padding="frames")


@pytest.mark.gpu
def test_a_gpu_computes_spectrograms_itself(waveforms: list[Waveform]) -> None:
    made = build_spectrograms(torch.device("cuda"), num_mel_bins=80, num_threads=1, padding="frames")
    drawn = made.compute(waveforms, num_frames=200, masks=masks_for(waveforms))
    assert drawn.device.type == "cuda"
    expected = DeviceSpectrograms(80, CPU, padding="frames").compute(
        waveforms, num_frames=200, masks=masks_for(waveforms)
    )
    np.testing.assert_allclose(drawn.cpu().numpy(), expected.numpy(), atol=TOLERANCE)
