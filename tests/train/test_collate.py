from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperTokenizerFast

from sottovoce.audio.augment import AugmentConfig
from sottovoce.audio.features import log_mel
from sottovoce.audio.pcm import from_pcm
from sottovoce.model.context import AudioContext
from sottovoce.model.labels import IGNORED, encode_labels
from sottovoce.schema import Example, PcmBatch, Utterance
from sottovoce.train.collate import Collator, TrainBatch, shift_labels

START, END = 50_258, 50_257


@pytest.fixture(scope="module")
def collator(micro_assets: Path) -> Collator:
    tokenizer = WhisperTokenizerFast.from_pretrained(micro_assets, local_files_only=True)
    return Collator(tokenizer, AudioContext(2.0, 10.0), 80)


def utterance(index: int, *, duration_s: float) -> Utterance:
    return Utterance(id=f"u{index}", audio="x.wav", duration_s=duration_s, text="take two tablets" if index else "yes")


def pcm_batch(*seconds: float, epoch: int = 0) -> PcmBatch:
    noise = np.random.default_rng(0).integers(-9_000, 9_000, size=160_000).astype(np.int16)
    return PcmBatch(
        step=0,
        epoch=epoch,
        recordings=tuple((noise[: round(one * 16_000)],) for one in seconds),
        examples=tuple(Example(utterances=(utterance(i, duration_s=max(one, 0.1)),)) for i, one in enumerate(seconds)),
        rejects=(),
    )


def collate(collator: Collator, batch: PcmBatch, augment: AugmentConfig | None = None) -> TrainBatch:
    with ThreadPoolExecutor(1) as executor:
        return collator.training_batch(batch, augment or AugmentConfig(), seed=0, executor=executor)


def test_the_start_token_stands_once_and_first_and_the_end_token_is_learned_once() -> None:
    inputs, targets = shift_labels([[START, 1, 2, END], [START, 7, END]], padding_id=END)
    assert inputs.tolist() == [[START, 1, 2], [START, 7, END]]
    assert targets.tolist() == [[1, 2, END], [7, END, IGNORED]]


def test_labels_of_real_text_shift_by_one(collator: Collator) -> None:
    batch = collate(collator, pcm_batch(1.0, 1.5))
    ids = encode_labels(collator.tokenizer, "take two tablets", language="en")
    assert batch.decoder_input_ids[1].tolist() == ids[:-1]
    assert batch.labels[1].tolist() == ids[1:]
    assert (batch.decoder_input_ids == START).sum(dim=1).tolist() == [1, 1]
    assert ((batch.labels == END).sum(dim=1)).tolist() == [1, 1]
    assert (batch.labels[0] == IGNORED).any()


def test_the_context_is_that_of_the_longest_recording(collator: Collator) -> None:
    assert collate(collator, pcm_batch(1.0, 1.2)).input_features.shape == (2, 80, 200)
    assert collate(collator, pcm_batch(1.0, 4.1)).input_features.shape == (2, 80, 450)


def test_without_augmentation_the_features_are_those_of_the_recognizer(collator: Collator) -> None:
    batch = pcm_batch(1.0, 3.0)
    expected = log_mel(from_pcm(batch.recordings[0][0]), num_mel_bins=80, num_frames=300)
    assert np.array_equal(collate(collator, batch).input_features[0].numpy(), expected)


def test_augmentation_differs_between_epochs_and_not_between_runs(collator: Collator) -> None:
    augment = AugmentConfig(speed_range=0.1, num_time_masks=2, num_mel_masks=2, gain_db=6.0)
    first, again, later = (collate(collator, pcm_batch(1.0, 1.5, epoch=epoch), augment) for epoch in (0, 0, 1))
    assert torch.equal(first.input_features, again.input_features)
    assert not torch.equal(first.input_features, later.input_features)


def test_a_recording_without_samples_counts_for_nothing(collator: Collator) -> None:
    batch = collate(collator, pcm_batch(1.0, 0.0), AugmentConfig(speed_range=0.1, noise_probability=1.0))
    assert (batch.labels[1] == IGNORED).all()
    assert torch.isfinite(batch.input_features).all()
    assert batch.audio_s == pytest.approx(1.0, rel=0.15)


def test_a_batch_without_any_samples_keeps_its_shape(collator: Collator) -> None:
    batch = collate(collator, pcm_batch(0.0, 0.0))
    assert (batch.labels == IGNORED).all()
    assert batch.input_features.shape == (2, 80, 200)
