"""An error of ours ends a run of real workers at once, although the run may fail three times."""

import threading
from pathlib import Path

import pytest
from tone_training import tone_job, training_workers

from benchmarks.audited_training import write_tones
from jobs.train_whisper import main
from sottovoce.data.manifest import read_manifest, write_manifest
from sottovoce.errors import StorageError

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(1800)]


class CountedStarts:
    """Counts how often the one worker of a run was started."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.2):
            self._pids |= {process.pid for process in training_workers()}

    def count(self) -> int:
        self._stopped.set()
        self._thread.join()
        return len(self._pids)


def test_storage_that_does_not_answer_starts_no_worker_again(
    local_ray: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    tones = write_tones(tmp_path, num_train=12, num_validation=4)
    missing = {"audio": "http://127.0.0.1:9/5.wav"}
    write_manifest([one.model_copy(update=missing) if one.id == "u5" else one for one in read_manifest(tones)], tones)
    job = tone_job(tones, tiny_checkpoint, tmp_path / "out", max_failures=3, num_workers=1)
    starts = CountedStarts()
    with pytest.raises(StorageError) as caught:
        main(job)
    assert type(caught.value) is StorageError
    assert starts.count() == 1
