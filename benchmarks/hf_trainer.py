"""The peer of the training benchmark, in a process of its own: Hugging Face's Seq2SeqTrainer with its defaults.

``python -m benchmarks.hf_trainer --model FOLDER --clips FILE ... --output FILE``. What its fine-tuning guides show:
features padded to 30 s, the guides' collator, everything else as Seq2SeqTrainingArguments has it. In its favour, the
features are computed beforehand and lie in memory, where the guides read them from an Arrow file.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch.utils.data import Dataset
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from sottovoce.audio.decode import read_audio
from sottovoce.audio.features import log_mel
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.manifest import read_manifest
from sottovoce.model.labels import IGNORED, encode_labels
from sottovoce.model.variants import RunDevice
from sottovoce.schema import FRAMES_PER_SECOND, MAX_CONTEXT_S

_PADDED_FRAMES = round(MAX_CONTEXT_S * FRAMES_PER_SECOND)


class PeerRun(Config):
    """One run of the peer."""

    model: Path
    """Checkpoint folder."""
    manifest: Path
    output: Path
    """JSON file of seconds and audio seconds, without the first steps."""
    batch_size: int = Field(ge=1)
    num_steps: int = Field(ge=1)
    num_warmup_steps: int = Field(ge=0)
    """Steps before the clock starts."""
    precision: str = "fp32"
    device: RunDevice = "cpu"
    seed: int = 0


class PaddedClips(Dataset[dict[str, Any]]):
    """Features (M, 3000) and label ids, in memory; remembers which were asked for."""

    def __init__(self, manifest: Path, *, tokenizer: WhisperTokenizerFast, num_mel_bins: int) -> None:
        utterances = read_manifest(manifest)
        self.durations_s = [one.duration_s for one in utterances]
        self.asked: list[int] = []
        self._rows = [
            {
                "input_features": log_mel(read_audio(one.audio), num_mel_bins=num_mel_bins, num_frames=_PADDED_FRAMES),
                "labels": encode_labels(tokenizer, one.text, language=one.language),
            }
            for one in utterances
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        self.asked.append(place)
        return dict(self._rows[place])


class GuidesCollator:
    """Pad as the guides' collator does: features by the extractor, labels with the ignored value."""

    def __init__(self, folder: Path, *, tokenizer: WhisperTokenizerFast, start_id: int) -> None:
        self._extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self._tokenizer, self._start_id = tokenizer, start_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch of rows."""
        features = [{"input_features": row["input_features"]} for row in rows]
        batch: dict[str, torch.Tensor] = dict(self._extractor.pad(features, return_tensors="pt"))
        padded = self._tokenizer.pad([{"input_ids": row["labels"]} for row in rows], return_tensors="pt")
        labels = padded["input_ids"].masked_fill(padded["attention_mask"].ne(1), IGNORED)
        if bool((labels[:, 0] == self._start_id).all()):
            labels = labels[:, 1:]
        return batch | {"labels": labels}


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        """Called by the trainer."""
        self.ends.append(time.perf_counter())


def main(run: PeerRun) -> None:
    """Train, and write how long it took."""
    setup_logging()
    model = WhisperForConditionalGeneration.from_pretrained(run.model)
    tokenizer = WhisperTokenizerFast.from_pretrained(run.model)
    clips = PaddedClips(run.manifest, tokenizer=tokenizer, num_mel_bins=model.config.num_mel_bins)
    clock = Clock()
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(run.output.parent / "hf_trainer"),
            per_device_train_batch_size=run.batch_size,
            max_steps=run.num_steps,
            learning_rate=1e-5,
            warmup_steps=2,
            fp16=run.precision == "fp16",
            bf16=run.precision == "bf16",
            seed=run.seed,
            use_cpu=run.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=clips,
        data_collator=GuidesCollator(run.model, tokenizer=tokenizer, start_id=model.config.decoder_start_token_id),
        callbacks=[clock],
    )
    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    first = run.num_warmup_steps
    timed = clips.asked[first * run.batch_size : run.num_steps * run.batch_size]
    result = {
        "seconds": clock.ends[-1] - clock.ends[first - 1],
        "audio_s": sum(clips.durations_s[place] for place in timed),
        "num_samples": len(timed),
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if run.device == "cuda" else 0.0,
    }
    run.output.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(load_config(PeerRun))
