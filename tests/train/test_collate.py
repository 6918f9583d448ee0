from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperTokenizerFast

from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig
from sottovoce.audio.features import log_mel
from sottovoce.audio.waveform import from_pcm
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.labels import IGNORED, Labels, encode_labels
from sottovoce.schema import Example, PcmBatch, Utterance
from sottovoce.train.batches import Collator, LabelMix, TrainBatch, find_label_indices, pad_labels
from sottovoce.train.spectrograms import ThreadedSpectrograms

START, END, FIRST_TIMESTAMP = 50_258, 50_257, 50_364
PLAIN, TIMED = LabelMix(0.0, 0.0), LabelMix(1.0, 0.0)


@pytest.fixture(scope="module")
def collator(micro_assets: Path) -> Collator:
    tokenizer = WhisperTokenizerFast.from_pretrained(micro_assets, local_files_only=True)
    return Collator(tokenizer, AudioContext(2.0, 10.0), ThreadedSpectrograms(80, num_threads=1, padding="frames"))


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


def collate(
    collator: Collator, batch: PcmBatch, masks: SpecAugmentConfig | None = None, mix: LabelMix | None = None
) -> TrainBatch:
    return collator.training_batch(batch, spec_augment=masks or SpecAugmentConfig(), label_mix=mix or PLAIN, seed=0)


def test_inputs_are_padded_with_the_end_token_and_targets_masked_by_length() -> None:
    one, other = Labels([START, 1, 2], [1, 2, END]), Labels([START, 7], [7, END])
    inputs, targets = pad_labels([one, other, None], padding_id=END)
    assert inputs.tolist() == [[START, 1, 2], [START, 7, END], [END, END, END]]
    assert targets.tolist() == [[1, 2, END], [7, END, IGNORED], [IGNORED] * 3]
    assert find_label_indices(targets).tolist() == [0, 1, 2, 3, 4]


def test_labels_of_real_text_shift_by_one(collator: Collator) -> None:
    batch = collate(collator, pcm_batch(1.0, 1.5))
    ids = encode_labels(collator.tokenizer, "take two tablets", language="en")
    assert batch.decoder_input_ids[1].tolist() == ids[:-1]
    assert batch.labels[1].tolist() == ids[1:]
    assert (batch.decoder_input_ids == START).sum(dim=1).tolist() == [1, 1]
    assert ((batch.labels == END).sum(dim=1)).tolist() == [1, 1]
    assert (batch.labels[0] == IGNORED).any()
    assert batch.labels.flatten()[batch.label_indices].tolist() == batch.labels[batch.labels != IGNORED].tolist()


def test_the_context_is_that_of_the_longest_recording(collator: Collator) -> None:
    assert collate(collator, pcm_batch(1.0, 1.2)).input_features.shape == (2, 80, 200)
    assert collate(collator, pcm_batch(1.0, 4.1)).input_features.shape == (2, 80, 450)


def test_without_masks_the_features_are_those_of_the_recognizer(collator: Collator) -> None:
    batch = pcm_batch(1.0, 3.0)
    expected = log_mel(from_pcm(batch.recordings[0][0]), num_mel_bins=80, num_frames=300, padding="frames")
    assert np.array_equal(collate(collator, batch).input_features[0].numpy(), expected)


def test_masks_differ_between_epochs_and_not_between_runs(collator: Collator) -> None:
    masks = SpecAugmentConfig(num_time_masks=2, num_mel_masks=2)
    first, again, later = (collate(collator, pcm_batch(1.0, 1.5, epoch=epoch), masks) for epoch in (0, 0, 1))
    assert torch.equal(first.input_features, again.input_features)
    assert not torch.equal(first.input_features, later.input_features)


def test_an_example_without_samples_has_no_labels_that_count(collator: Collator) -> None:
    batch = collate(collator, pcm_batch(1.0, 0.0), SpecAugmentConfig(num_time_masks=2, num_mel_masks=2))
    assert (batch.labels[1] == IGNORED).all()
    assert torch.isfinite(batch.input_features).all()
    assert batch.audio_s == 1.0


def test_a_batch_without_any_samples_keeps_its_shape(collator: Collator) -> None:
    batch = collate(collator, pcm_batch(0.0, 0.0))
    assert (batch.labels == IGNORED).all()
    assert batch.input_features.shape == (2, 80, 200)


def pack(*texts: str, seconds: tuple[float, ...]) -> PcmBatch:
    """One example of several utterances, all zeros."""
    utterances = tuple(
        Utterance(id=f"p{i}", audio="x.wav", duration_s=max(one, 0.1), text=text)
        for i, (text, one) in enumerate(zip(texts, seconds, strict=True))
    )
    recordings = tuple(np.zeros(round(one * 16_000), np.int16) for one in seconds)
    return PcmBatch(step=0, epoch=0, examples=(Example(utterances=utterances),), recordings=(recordings,), rejects=())


def test_timestamps_in_labels_follow_from_the_samples(collator: Collator) -> None:
    batch = collate(collator, pack("yes", "no", seconds=(1.0, 0.5)), mix=TIMED)
    times = [(token - FIRST_TIMESTAMP) * 0.02 for token in batch.labels[0].tolist() if token >= FIRST_TIMESTAMP]
    assert times == pytest.approx([0.0, 1.0, 1.0, 1.5])
    assert batch.audio_s == 1.5
    assert batch.input_features.shape == (1, 80, 200)


def test_an_utterance_that_was_not_decoded_is_left_out_of_its_pack(collator: Collator) -> None:
    batch = collate(collator, pack("yes", "never heard", "no", seconds=(1.0, 0.0, 0.5)))
    text = collator.tokenizer.decode(batch.decoder_input_ids[0], skip_special_tokens=True)
    assert text == " yes no"


def test_a_text_too_long_for_the_decoder_becomes_rejects_and_has_no_labels(collator: Collator) -> None:
    batch = collate(collator, pack(" ".join(["the"] * 300), " ".join(["a"] * 300), seconds=(1.0, 1.0)))
    assert [(reject.id, reject.reason) for reject in batch.rejects] == [
        ("p0", "label_too_long"),
        ("p1", "label_too_long"),
    ]
    assert (batch.labels == IGNORED).all()
    assert batch.input_features.shape == (1, 80, 200)


def test_a_pack_some_samples_longer_than_the_context_is_cut(collator: Collator) -> None:
    batch = collate(collator, pack("yes", "no", seconds=(6.0, 4.0005)), mix=TIMED)
    assert batch.input_features.shape == (1, 80, 1_000)
    assert batch.audio_s == 10.0
