"""Files that release 0.1 wrote are still read: shortened copies of what a real run of that release left behind."""

import json
from typing import Any

from sottovoce.audio.augmentation.augment import AugmentConfig
from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.saved import manifest_to_saved, saved_to_manifest
from sottovoce.data.dataset import SpeechStream
from sottovoce.schema import Example, Utterance
from sottovoce.train.record import TrainingRecord

ROW = """{
  "step": 0, "epoch": 0.0, "training_loss": null, "validation_loss": 11.841603136062622, "wer": 6.0, "wer_low": 4.0,
  "wer_high": 8.0, "cer": 9.1875, "seconds": 0.14505008300011468, "groups": []
}"""

RUN_STATE = f"""{{
  "step": 3,
  "cursor": {{
    "epoch": 1, "step_in_epoch": 0, "steps_per_epoch": 3, "num_slots": 2,
    "fingerprint": "6de1ecaaa713b7787bf123413cb23d37f72535042507e7584408df49a9225f07"
  }},
  "settings": {{"precision": "fp32", "method": "full", "learning_rate": 0.01, "spec_augment.num_time_masks": 0}},
  "rows": [{ROW}],
  "rejects": [{{"id": "a", "audio": "a.wav", "reason": "missing_file", "detail": "there is no file a.wav"}}],
  "seconds": 3.6927679340001305, "audio_s": 24.375, "loss_since_row": [0.0, 0.0], "step_s": 3.287693842999488,
  "data_wait_s": 0.9656713150006908, "resumed_at": [], "skipped_steps": 2, "skipped_in_a_row": 1, "is_finished": false
}}"""

# Two of the files of a checkpoint; the digest is the one that release 0.1 computed for them.
MANIFEST = """{
 "format_version": 1,
 "sha256": "e39c7f967339959c7a5f6cb065dd4539e5fbfce6e4bcd9d1276b4b628a75af1c",
 "checkpoint": {
  "name": "step-00000006-6ea86b2e",
  "sequence": 3,
  "step": 6,
  "wer": 4.0,
  "files": {
   "run_state.json": {
    "size": 1987,
    "sha256": "c5dc46a26c113a68f03fbd561c8169f94974a969b6639e38792344abd279ad58"
   },
   "checkpoint/model.safetensors": {
    "size": 7022360,
    "sha256": "b3b53cc5a2226e0f59d48f1879abe869efe8bc47169a1fec25a92993332d685f"
   }
  }
 }
}
"""

RECORD = f"""{{
  "base": "tiny",
  "training": {{
    "base": "tiny", "method": "full", "num_epochs": 8, "max_steps": null, "learning_rate": 0.001, "warmup_steps": 4,
    "lora": {{
      "rank": 16, "alpha": 32, "targets": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], "dropout": 0.0,
      "part": "both", "token_rows": false
    }},
    "weight_decay": 0.01, "label_smoothing": 0.0, "max_grad_norm": 1.0, "accumulation_steps": 1,
    "gradient_checkpointing": false, "dropout": 0.1, "audio_context_s": [1.0, 6.0],
    "spec_augment": {{
      "num_time_masks": 1, "max_time_mask_fraction": 0.05, "num_mel_masks": 1, "max_mel_mask_bins": 10
    }},
    "timestamp_probability": 0.2, "previous_text_probability": 0.2, "precision": "fp32", "device": "cpu",
    "num_workers": 2, "resize_interval_s": 60.0, "cpus_per_worker": 0.5, "threads_per_worker": 1,
    "evaluate_every_steps": 12, "save_every_steps": 4, "evaluation_batch_size": 16, "patience": null,
    "normalizer": "english", "max_reject_fraction": 0.01, "max_failures": 8, "stuck_after_s": 10.0,
    "max_skipped_in_a_row": 10, "checkpoints": null, "keep_best": 1, "log_every_steps": 1,
    "trackers": ["tensorboard", "mlflow", "wandb"], "seed": 0
  }},
  "device": "cpu", "precision": "fp32",
  "data": {{
    "num_train": 36, "train_hours": 0.0115625, "num_validation": 4, "validation_hours": 0.0021180555555555558,
    "languages": ["en"], "num_speakers": 2, "rejects": {{}}, "tasks_per_worker": 1, "prefetch_batches": 2
  }},
  "num_parameters": 1754240, "num_trained_parameters": 1706240, "num_steps": 24, "rows": [{ROW}], "best_step": 0,
  "normalizer": "english", "audio_context_s": [1.0, 6.0], "seconds": 20.48435874200004, "audio_s": 333.00000000000006,
  "step_s": 8.326909130999411, "data_wait_s": 0.09298837300320884, "resumed_at": [], "skipped_steps": 0,
  "warnings": [],
  "alignment": {{
    "heads": [[0, 1]], "is_derived": true, "error_s": 0.0153, "error_before_s": 1.2949, "num_times": 80,
    "num_windows": 13, "remark": "too few words"
  }},
  "versions": {{"ray": "2.60.0", "torch": "2.13.0+cpu", "transformers": "4.57.6", "sottovoce": "0.1.0"}},
  "is_finished": true
}}"""


def test_a_run_state_is_read_with_its_cursor_and_written_with_the_new_names() -> None:
    state = RunState.model_validate_json(RUN_STATE)
    assert state.cursor is not None
    assert (state.cursor.epoch, state.cursor.num_microbatches, state.skipped_steps) == (1, 2, 2)
    assert state.rejects[0].reason == "missing_file"
    written: dict[str, Any] = json.loads(state.model_dump_json())
    assert written["cursor"]["num_microbatches"] == 2
    assert RunState.model_validate(written) == state


def test_a_manifest_is_read_and_its_digest_still_holds() -> None:
    saved = manifest_to_saved(MANIFEST.encode(), location="m")
    assert (saved.step, saved.wer, saved.files["run_state.json"].size) == (6, 4.0, 1987)
    assert saved_to_manifest(saved).decode() == MANIFEST


def test_a_record_is_read_with_its_settings_and_its_alignment_heads() -> None:
    record = TrainingRecord.model_validate_json(RECORD)
    assert (record.num_steps, record.best.wer, record.training.num_workers) == (24, 6.0, 2)
    assert record.alignment is not None
    assert record.alignment.reason == "too few words"


def test_the_fingerprint_of_the_data_is_the_one_that_old_checkpoints_hold() -> None:
    utterances = [
        Utterance(id=f"u{index}", audio="a.wav", duration_s=0.5 + index / 8, text="x", language="en", split="train")
        for index in range(12)
    ]
    stream = SpeechStream(
        examples=tuple(Example(utterances=(one,)) for one in utterances),
        manifest_sizes=(8, 4),
        weights=(1.0, 0.5),
        batch_size=2,
        batch_s=10.0,
        augment=AugmentConfig(),
        steps_per_task=2,
        tasks_per_worker=1,
        cpus_per_task=0.25,
        prefetch_batches=2,
    )
    assert (
        stream.fingerprint(num_microbatches=2, seed=0)
        == "fed33f9cf224ed026251216e1e9492a7b424b59bd2b0ebdd63521006c5c2ab1f"
    )  # by release 0.1
