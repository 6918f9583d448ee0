"""What storage says of the models folder, in one sentence with a remedy."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sottovoce.errors import ConfigError, SottovoceError

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_readable(models_folder: Path) -> None:
    """Check that the models in a folder can be found: one that cannot be read looks like an empty one.

    Raises:
        ConfigError: it is a file, or this user must not read it.
    """
    if not models_folder.exists():
        return
    if not models_folder.is_dir():
        raise ConfigError(f"the models folder {models_folder} is a file; name a folder with --models-folder")
    if not os.access(models_folder, os.R_OK | os.X_OK):
        remedy = "let this user read it, or name another with --models-folder"
        raise ConfigError(f"the models folder {models_folder} cannot be read (permission denied); {remedy}")


@contextmanager
def explained_writes(models_folder: Path) -> Iterator[None]:
    """Wrap a change of the models folder.

    Raises:
        ConfigError: the folder cannot be written, or is full; what is served stays as it is.
    """
    try:
        yield
    except SottovoceError:
        raise
    except OSError as error:
        if (reason := _reason(error, _FULL)) is not None:
            remedy = "make room, or name another with --models-folder"
        elif (reason := _reason(error, _DENIED)) is not None:
            remedy = "let this user write it, or name another with --models-folder"
        else:
            raise
        raise ConfigError(
            f"the models folder {models_folder} cannot be written ({reason}); {remedy}; what is served stays as it is"
        ) from error


def _reason(error: OSError, numbers: tuple[int, ...]) -> str | None:
    """Return the system's words for one of these errors; a copy of a tree has them in its message only."""
    words = [os.strerror(number) for number in numbers if error.errno == number or os.strerror(number) in str(error)]
    return words[0] if words else None
