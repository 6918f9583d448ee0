"""Replace a text file in one step: a reader finds all of the new text or all of the old, also after a kill."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # some mounts (FUSE, SMB) support fsync for files only


def atomic_write(path: Path, text: str | Iterable[str], *, survives_power_loss: bool = False) -> None:
    """Write a text file in UTF-8 with Unix line ends, and put it in place once it is complete.

    Args:
        path: the file; its folder exists.
        text: the whole text, or its parts in order.
        survives_power_loss: sync the file and its folder before returning. Without it a power loss may bring the
            old text back.

    Raises:
        OSError: storage refused it; the file is as it was before.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines([text] if isinstance(text, str) else text)
            if survives_power_loss:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if survives_power_loss:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss; mounts that cannot sync folders are left alone.

    Raises:
        OSError: storage failed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
