"""A loaded model as a transcriber describes it to the gateway."""

from dataclasses import dataclass

from serve.models.file_digests import FileDigest


@dataclass(frozen=True)
class ServedModel:
    """One loaded model."""

    min_window_s: float
    """Shortest context in seconds; a shorter window is padded to it."""
    max_window_s: float
    """Longest window in seconds."""
    language_names: dict[str, str]
    """English name in lower case by ISO 639-1 code."""
    key: str = ""
    """Key of exactly these weights, by which a transcriber loads them."""
    files: tuple[FileDigest, ...] = ()
    """The files it was read from."""
