"""Fixtures of the corpora's tests."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """A remote file system, empty before and after the test."""
    filesystem = MemoryFileSystem()
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """Return a function that encodes a tone of some seconds as the bytes of a file."""

    def make(audio_format: str = "FLAC", *, duration_s: float = 0.5, pitch_hz: float = 220.0) -> bytes:
        time_s = np.arange(round(16_000 * duration_s)) / 16_000
        buffer = io.BytesIO()
        soundfile.write(buffer, 0.3 * np.sin(2 * np.pi * pitch_hz * time_s), 16_000, format=audio_format)
        return buffer.getvalue()

    return make


@pytest.fixture(params=["local", "memory"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, memory: MemoryFileSystem
) -> Callable[[dict[str, bytes]], str]:
    """Return a function that writes files and returns their folder: once local, once behind a protocol."""

    def write(files: dict[str, bytes]) -> str:
        folder = str(tmp_path / "corpus") if request.param == "local" else "memory:///corpus"
        for name, content in files.items():
            with fsspec.open(f"{folder}/{name}", "wb", auto_mkdir=True) as file:
                file.write(content)
        return folder

    return write
