"""Checkpoints of a real run: elsewhere than the output, and damaged behind its back."""

from pathlib import Path

import pytest
from tone_training import read_record, tone_job

from jobs.train_whisper import main
from sottovoce.checkpoints.store import CheckpointStore
from sottovoce.errors import NoGoodCheckpointError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before_it(
    local_ray: str,
    in_process: None,
    tones: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    job = tone_job(tones, tiny_checkpoint, tmp_path / "tones", num_epochs=1, checkpoints=f"file://{tmp_path}/kept")
    main(job)
    kept = tmp_path / "kept" / "tones"
    store = CheckpointStore(str(kept))
    assert [saved.step for saved in store.committed()] == [3, 0]
    assert not (job.output / "checkpoints").exists()

    flip_a_bit(kept / store.committed()[0].name / "checkpoint" / "model.safetensors")
    (job.output / "record.json").unlink()
    main(job)
    record = read_record(job.output)
    assert record.resumed_at == (0,)
    assert [row.step for row in record.rows] == [0, 3]
    assert [saved.step for saved in store.committed()] == [3, 0]

    for saved in store.committed():
        flip_a_bit(kept / saved.name / "training" / "optimizer.safetensors")
    with pytest.raises(NoGoodCheckpointError, match=r"step-00000003.*its sha256 .*step-00000000"):
        main(job)
