"""Text files that are there as a whole, or as they were before."""

import os
from pathlib import Path


def atomic_write(path: Path, text: str) -> None:
    """Write a file in UTF-8; who reads it, also after a kill, finds all of the new text or all of the old.

    Args:
        path: of the file, in a folder that is there.
        text: all of it.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
