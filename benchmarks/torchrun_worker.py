"""The peer of the launcher benchmark: our step, prefetch and collator under torchrun, without Ray.

``python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.torchrun_worker --model FOLDER ...``.
"""

import json
import time
from contextlib import closing
from pathlib import Path

import torch
from pydantic import Field
from torch.distributed import destroy_process_group

from benchmarks.our_training import ToneStream
from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.batches import Collator, LabelMix, prefetched
from sottovoce.train.config import TrainingConfig
from sottovoce.train.health.heartbeat import HeartbeatSender
from sottovoce.train.objective import WhisperObjective, parameter_groups
from sottovoce.train.spectrograms import build_spectrograms
from sottovoce.train.step import SkippedSteps, Stepper
from sottovoce.train.worker_model import build_accelerator, set_up


class TorchrunRun(Config):
    """One run of one worker."""

    model: Path
    """Checkpoint folder."""
    recording: Path
    """JSON of the utterance that is read again and again."""
    output: Path
    """JSON file of the seconds of a step."""
    batch_size: int = Field(ge=1)
    num_steps: int = Field(ge=2)
    num_warmup_steps: int = Field(ge=1)


def main(run: TorchrunRun) -> None:
    """Train, and write how long a step took."""
    setup_logging()
    torch.set_num_threads(1)
    config = TrainingConfig(base=str(run.model), learning_rate=1e-5, num_workers=2)
    accelerator = build_accelerator(device="cpu", precision="fp32")
    checkpoint = load_checkpoint(run.model)
    set_up(checkpoint, config)
    objective = WhisperObjective(checkpoint.model, label_smoothing=0.0)
    groups = parameter_groups(objective, weight_decay=config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.peak_lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    model, optimizer = accelerator.prepare(objective, optimizer)
    stepper = Stepper(
        accelerator,
        model,
        optimizer,
        max_grad_norm=config.max_grad_norm,
        skipped=SkippedSteps(accelerator, config.max_skipped_in_a_row),
        heartbeat=HeartbeatSender(
            None, rank=accelerator.process_index, num_ranks=accelerator.num_processes, stuck_after_s=None
        ),
    )
    recording = Utterance.model_validate_json(run.recording.read_text(encoding="utf-8"))
    stream = ToneStream(recording, run.batch_size, run.num_steps)
    spectrograms = build_spectrograms(
        accelerator.device, num_mel_bins=checkpoint.num_mel_bins, num_threads=1, padding=checkpoint.context.padding
    )
    collator = Collator(checkpoint.tokenizer, checkpoint.context, spectrograms)
    label_mix = LabelMix(config.timestamp_probability, config.previous_text_probability)
    microbatches = range(accelerator.process_index, accelerator.num_processes, accelerator.num_processes)
    read = stream.batches(
        microbatches=microbatches,
        num_microbatches=accelerator.num_processes,
        seed=0,
        first_step=0,
        last_step=run.num_steps,
    )
    made = (
        collator.training_batch(batch, spec_augment=SpecAugmentConfig(), label_mix=label_mix, seed=0) for batch in read
    )
    started = 0.0
    with closing(spectrograms), prefetched(made, depth=2) as batches:
        for step, batch in enumerate(batches):
            if step == run.num_warmup_steps:
                started = time.perf_counter()
            stepper.step([batch], learning_rate=config.peak_lr)
        step_s = (time.perf_counter() - started) / (run.num_steps - run.num_warmup_steps)
    if accelerator.is_main_process:
        run.output.write_text(json.dumps({"step_s": step_s}), encoding="utf-8")
    destroy_process_group()


if __name__ == "__main__":
    main(load_config(TorchrunRun))
