"""The classes of transformers' Whisper, imported without scikit-learn: a second and 100 MB less in each process.

Where scikit-learn is installed, as librosa's dependency for example, transformers imports it with all that generates
text, for one figure of its assisted generation, which nothing here runs.
"""

from contextlib import suppress
from importlib import import_module


def _import_generation() -> None:
    """Import what asks for scikit-learn while the answer is no; a transformers without that module needs none of it."""
    names = vars(import_module("transformers.utils"))
    is_available = names["is_sklearn_available"]
    names["is_sklearn_available"] = lambda: False
    try:
        with suppress(ModuleNotFoundError):
            import_module("transformers.generation.candidate_generator")
    finally:
        names["is_sklearn_available"] = is_available


_import_generation()
from transformers import WhisperForConditionalGeneration  # noqa: E402 - after it
from transformers.models.whisper import modeling_whisper  # noqa: E402

__all__ = ["WhisperForConditionalGeneration", "modeling_whisper"]
