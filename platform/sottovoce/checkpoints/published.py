"""The outcome of a run, read from its checkpoint store: its last state, and its best model in the output folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sottovoce.audio.remote import client_errors
from sottovoce.checkpoints.disk import LocalDisk
from sottovoce.checkpoints.disk_files import check_file, name_write_fault, write_file
from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.saved import Saved
from sottovoce.checkpoints.state import MODEL_FOLDER, STATE_FILE, read_run_state
from sottovoce.checkpoints.store import CheckpointStore, Opened
from sottovoce.errors import CheckpointError


def read_last_state(store: CheckpointStore) -> RunState:
    """Read the last state of a run that has ended.

    Raises:
        NoGoodCheckpointError: see ``CheckpointStore.latest``.
        CheckpointError: its last checkpoint has been lost or damaged.
    """
    with store.latest(under=STATE_FILE) as last:
        state = None if last is None else read_run_state(last.folder)
    if state is None or not state.is_finished:
        reached = "there is none" if state is None else f"the last intact one was written at step {state.step}"
        raise CheckpointError(
            store.location,
            f"the checkpoint of the run's end is missing ({reached}); run the same command again to resume from there",
        )
    return state


@contextmanager
def published_best(store: CheckpointStore, target: Path) -> Iterator[tuple[Saved, Path]]:
    """Yield a verified copy of the best model to complete; it replaces ``target`` if the block ends without an error.

    Args:
        store: that of a run that has ended.
        target: the model's folder; it is replaced as a whole or left unchanged.

    Yields:
        The best checkpoint, and the folder of the copy.

    Raises:
        NoGoodCheckpointError: see ``CheckpointStore.latest``.
        CheckpointError: no checkpoint was scored.
        CheckpointWriteError: the copy could not be written.
    """
    partial = target.with_name(f"{target.name}.partial")
    with store.best(under=MODEL_FOLDER) as best:
        if best is None:
            raise CheckpointError(store.location, "no checkpoint of the run was scored")
        try:
            _copy(best, partial)
        except client_errors() as error:
            raise name_write_fault(error, str(target)) from error
    yield best.saved, partial
    before = target.with_name(f"{target.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        target.rename(before)
    partial.rename(target)
    LocalDisk(target.parent).sync_folder("")
    shutil.rmtree(before, ignore_errors=True)


def _copy(best: Opened, partial: Path) -> None:
    """Copy the model's files, sync them, and verify the copies against the manifest."""
    shutil.rmtree(partial, ignore_errors=True)
    source, copy = LocalDisk(best.folder), LocalDisk(partial)
    for path, digest in best.saved.files.items():
        if path.startswith(f"{MODEL_FOLDER}/"):
            name = path.removeprefix(f"{MODEL_FOLDER}/")
            copy.make_folder(str(Path(name).parent))
            write_file(copy, name, map(memoryview, source.read(path)))
            check_file(copy, name, digest, location=str(partial))
    copy.sync_folder("")
