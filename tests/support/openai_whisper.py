"""openai-whisper as tests use it, where it is installed."""

import warnings

import pytest

LANGUAGE_IDS = range(50_259, 50_358)
"""Names of languages, which openai-whisper lets a transcript hold and we do not."""


def load_tokenizer():
    """Return its English transcribing tokenizer, and skip the test where it is not installed."""
    module = pytest.importorskip("whisper.tokenizer", reason="openai-whisper is in the extra dev")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # openai-whisper 20250625 leaves a file open
        return module.get_tokenizer(multilingual=True, num_languages=99, language="en", task="transcribe")
