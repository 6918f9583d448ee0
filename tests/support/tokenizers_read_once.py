"""One reading of each tokenizer: Whisper's takes a quarter of a second, and tests load hundreds of checkpoints."""

import copy
import hashlib
from pathlib import Path

import pytest
from transformers import WhisperTokenizerFast

# All that a fast tokenizer is made of; where one is missing, each caller reads for itself.
_FILES = ("tokenizer.json", "tokenizer_config.json", "normalizer.json", "special_tokens_map.json", "added_tokens.json")


def read_tokenizers_once(patch: pytest.MonkeyPatch) -> None:
    """Let tokenizers of the same bytes share one vocabulary, which a test may change in a deep copy alone."""
    read = WhisperTokenizerFast.from_pretrained
    known: dict[bytes, tuple[WhisperTokenizerFast, int]] = {}

    def from_pretrained(folder: str | Path, **options: object) -> WhisperTokenizerFast:
        paths = [Path(folder, name) for name in _FILES]
        if not options.keys() <= {"local_files_only"} or not all(path.is_file() for path in paths):
            return read(folder, **options)
        digest = _digest(paths)
        if digest not in known:
            first = read(folder, **options)
            known[digest] = first, len(first.added_tokens_decoder)
        shared, num_added = known[digest]
        assert len(shared.added_tokens_decoder) == num_added, "a test changed the vocabulary that all tests share"
        return _copy(shared, folder)

    patch.setattr(WhisperTokenizerFast, "from_pretrained", from_pretrained)


def _digest(paths: list[Path]) -> bytes:
    digest = hashlib.blake2b()
    for path in paths:
        digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.digest()


def _copy(tokenizer: WhisperTokenizerFast, folder: str | Path) -> WhisperTokenizerFast:
    """Copy all but the vocabulary: one's language or special tokens are not another's."""
    tokenizer.backend_tokenizer.no_padding()  # which the call before may have switched on
    tokenizer.backend_tokenizer.no_truncation()
    own = copy.copy(tokenizer)
    own.init_kwargs = dict(tokenizer.init_kwargs)
    own._special_tokens_map = dict(tokenizer._special_tokens_map)
    own.name_or_path = str(folder)
    return own
