from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.train.batches import Collator, TrainBatch
from sottovoce.train.microbatches import MicrobatchShare, fill_steps
from sottovoce.train.objective import WhisperObjective
from sottovoce.train.spectrograms import ThreadedSpectrograms

BATCH = TrainBatch(torch.zeros(1), torch.zeros(1), torch.zeros(1), audio_s=1.0)
EMPTY = replace(BATCH, audio_s=0.0)


@pytest.mark.parametrize("num_microbatches", [1, 3, 4, 7])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_every_microbatch_has_one_worker_and_all_workers_compute_equally_often(
    num_microbatches: int, num_ranks: int
) -> None:
    shares = [MicrobatchShare(num_microbatches, rank, num_ranks) for rank in range(num_ranks)]
    assert sorted(microbatch for share in shares for microbatch in share.microbatches) == list(range(num_microbatches))
    assert {len(share.microbatches) + share.num_empty for share in shares} == {shares[0].num_batches}
    assert all(share.num_empty in (0, 1) for share in shares)


def test_a_worker_with_fewer_microbatches_ends_each_step_with_an_empty_batch() -> None:
    share = MicrobatchShare(num_microbatches=3, rank=1, num_ranks=2)
    batches = [replace(BATCH, step=step, microbatch=1) for step in range(2)]
    filled = list(fill_steps(iter(batches), share, EMPTY))
    assert [batch.audio_s for batch in filled] == [1.0, 0.0, 1.0, 0.0]
    assert [batch.step for batch in filled[::2]] == [0, 1]


def test_a_worker_with_all_microbatches_reads_them_as_they_come() -> None:
    batches = [replace(BATCH, step=step, microbatch=microbatch) for step in range(2) for microbatch in range(3)]
    assert list(fill_steps(iter(batches), MicrobatchShare(num_microbatches=3, rank=0, num_ranks=1), EMPTY)) == batches


def test_an_empty_batch_has_neither_loss_nor_gradient(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    spectrograms = ThreadedSpectrograms(checkpoint.num_mel_bins, num_threads=1, padding="frames")
    empty = Collator(checkpoint.tokenizer, checkpoint.context, spectrograms).empty_batch()
    spectrograms.close()
    objective = WhisperObjective(checkpoint.model, label_smoothing=0.1).train()
    loss = objective(empty.input_features, empty.decoder_input_ids, empty.labels)
    loss.total.backward()
    assert (float(loss.total.detach()), float(loss.num_labels), empty.audio_s) == (0.0, 0.0, 0.0)
    gradients = [weight.grad for weight in objective.parameters() if weight.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
