"""Guards: an error of ours ends a run, steps that are not a number are left out.

Workers that stand still: see ``test_killed_run.py``, and ``tests/endurance/test_stuck.py``. That no worker is started
again after an error of ours: see ``tests/train/health/test_failure.py``, and on real workers
``tests/endurance/test_errors.py``.
"""

from pathlib import Path

import pytest
import torch
from storage_server import storage_server
from tone_training import tone_job

from jobs.train_whisper import main
from sottovoce.checkpoints.published import read_last_state
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.data.dataset import build_stream
from sottovoce.data.manifest import read_manifest, write_manifest
from sottovoce.data.mixing import read_speech
from sottovoce.errors import NonFiniteTrainingError, PrecisionUnavailableError, StorageError
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.train.record import add_state
from sottovoce.train.run import build_run, describe_run, run_training

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def change_one(tones: Path, name: str, **changes: str) -> Path:
    """Write another manifest, in which one training utterance is different."""
    changed = [one.model_copy(update=changes) if one.id == "u5" else one for one in read_manifest(tones)]
    write_manifest(changed, tones.with_name(name))
    return tones.with_name(name)


def test_storage_that_denies_access_ends_the_run_with_that_very_error(
    local_ray: str, in_process: None, tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with storage_server(b"") as url:
        faulty = change_one(tones, "storage.jsonl", audio=f"{url}/403/999/5.wav")
        job = tone_job(faulty, tiny_checkpoint, tmp_path / "out", max_failures=3, num_workers=1)
        with pytest.raises(StorageError) as caught:
            main(job)
    assert type(caught.value) is StorageError
    assert str(caught.value).startswith(f"the storage of {url}/403/999/5.wav does not answer")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def broken_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives NaN for whatever has more than 40 tokens: one utterance of ``long_manifest``."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        checkpoint.model.model.decoder.embed_positions.weight[40:] = torch.nan
    folder = tmp_path_factory.mktemp("checkpoints") / "broken"
    save_checkpoint(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def long_manifest(tones: Path) -> Path:
    return change_one(tones, "long.jsonl", text="low middle high " * 20)


def test_steps_that_are_not_a_number_are_left_out_and_stand_in_the_record_beside_what_was_warned_of(
    local_ray: str, in_process: None, long_manifest: Path, broken_checkpoint: Path, tmp_path: Path
) -> None:
    job = tone_job(long_manifest, broken_checkpoint, tmp_path / "out", learning_rate=0.01, warmup_steps=0)
    speech = read_speech(job.data.manifest)
    stream, validation = build_stream(speech, job.data), speech.split("validation")
    run = build_run(job.training, train=stream, validation=validation, output=job.output)
    run_training(run)
    store = build_store(None, output=job.output)
    record = add_state(describe_run(run, prepare_rejects=()), read_last_state(store), best_step=0)
    assert record.skipped_steps == 2  # one in each epoch
    assert all(row.training_loss is not None and row.training_loss > 0.0 for row in record.rows[1:])
    assert record.rows[2].validation_loss < record.rows[0].validation_loss
    (warning,) = record.warnings
    assert warning.startswith("learning_rate 0.01 is far above what is known to work")
    with store.latest() as last:
        assert last is not None
        weights = load_checkpoint(last.folder / MODEL_FOLDER).model.state_dict()
    weights["model.decoder.embed_positions.weight"] = weights["model.decoder.embed_positions.weight"][:40]
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_too_many_of_them_end_the_run_with_the_utterance_and_what_to_try(
    local_ray: str, in_process: None, long_manifest: Path, broken_checkpoint: Path, tmp_path: Path
) -> None:
    job = tone_job(long_manifest, broken_checkpoint, tmp_path / "out", max_skipped_in_a_row=0, max_failures=3)
    with pytest.raises(NonFiniteTrainingError, match=r"1 steps in a row .* loss nan, .*u5.*; lower learning_rate"):
        main(job)
    assert not (job.output / "checkpoint").exists()


def test_fp16_without_a_gpu_is_refused_before_anything_starts(
    tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = tone_job(tones, tiny_checkpoint, tmp_path / "out", precision="fp16")
    with pytest.raises(PrecisionUnavailableError, match="'fp16' needs a CUDA device"):
        main(job)
    assert not job.output.exists()
