"""Whisper's tokenizer without transformers: all that a recognizer needs of it.

transformers takes seconds to import, and brings torch with it; a replica that serves an exported variant needs neither.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from sottovoce.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"
_END = "<|endoftext|>"


class Encoding(Protocol):
    """Encoded text."""

    @property
    def input_ids(self) -> Any:  # noqa: ANN401 - one list for one text, a list of lists for several
        """Token ids."""


class Tokenizer(Protocol):
    """What ``FileTokenizer`` and transformers' ``WhisperTokenizerFast`` have in common."""

    @property
    def eos_token_id(self) -> Any:  # noqa: ANN401 - transformers has no types
        """The id of ``<|endoftext|>``."""

    @property
    def unk_token_id(self) -> Any:  # noqa: ANN401
        """The id that an unknown token has."""

    def convert_tokens_to_ids(self, tokens: str) -> Any:  # noqa: ANN401
        """Return the id of a token."""

    def convert_ids_to_tokens(self, ids: int) -> Any:  # noqa: ANN401
        """Return the token of an id."""

    def decode(self, token_ids: Sequence[int], *, clean_up_tokenization_spaces: bool) -> Any:  # noqa: ANN401
        """Return the text of tokens."""

    def __call__(self, text: Any, *, add_special_tokens: bool) -> Encoding:  # noqa: ANN401
        """Encode a text, or several."""


class FileTokenizer:
    """A tokenizer read from ``tokenizer.json`` alone."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Wrap a tokenizer; ``read_tokenizer`` reads one."""
        self._backend = backend
        self.eos_token_id = self.unk_token_id = int(backend.token_to_id(_END))

    def convert_tokens_to_ids(self, tokens: str) -> int:
        """Return the id of a token; that of ``<|endoftext|>`` for an unknown one, as in Whisper."""
        found = self._backend.token_to_id(tokens)
        return self.unk_token_id if found is None else int(found)

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        """Return the token of an id, in the letters of the vocabulary file."""
        token: str | None = self._backend.id_to_token(ids)
        return token

    def decode(self, token_ids: Sequence[int], *, clean_up_tokenization_spaces: bool) -> str:
        """Return the text of tokens, spaces as they are."""
        assert not clean_up_tokenization_spaces
        return str(self._backend.decode(list(token_ids), skip_special_tokens=False))

    def __call__(self, text: str, *, add_special_tokens: bool) -> "FileEncoding":
        """Encode one text."""
        return FileEncoding(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)


class FileEncoding:
    """The ids of one text."""

    def __init__(self, input_ids: list[int]) -> None:
        self.input_ids = input_ids


def read_tokenizer(folder: Path) -> FileTokenizer:
    """Read the tokenizer of an exported variant.

    Raises:
        CheckpointError: ``tokenizer.json`` is missing, damaged, or not Whisper's.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise CheckpointError(folder, f"{TOKENIZER_FILE} is missing; export the checkpoint again")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise CheckpointError(folder, f"{TOKENIZER_FILE}: {error}") from error
    if backend.token_to_id(_END) is None:
        raise CheckpointError(folder, f"{TOKENIZER_FILE} has no {_END}; it is not Whisper's")
    backend.no_padding()  # a file keeps what its last user had switched on
    backend.no_truncation()
    return FileTokenizer(backend)
