"""Which tokens a decoder may generate: the rules that all engines share, read from a checkpoint's files.

Shapes: V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import CheckpointError, LanguageError
from sottovoce.model.labels import ENGLISH, MAX_PROMPT_TOKENS, TokenKinds, is_english_only, prefix_ids, text_ids
from sottovoce.model.tokenizer import Tokenizer
from sottovoce.schema import DecodeOptions

_MAX_INITIAL_TIMESTAMP_INDEX = 50  # 1.0 s: openai-whisper's default, for generation configs without one


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A model's special tokens, and those it may not generate."""

    tokenizer: Tokenizer
    languages: tuple[str, ...]
    """ISO 639-1 codes, in the order of ``language_ids``."""
    language_ids: NDArray[np.int64]
    start_id: int
    """``<|startoftranscript|>``."""
    kinds: TokenKinds
    """Which ids are text, times, and the end of both."""
    no_speech_id: int
    suppressed: NDArray[np.int64]
    """Never generated: the checkpoint's list, and all special tokens for languages, tasks and other marks."""
    suppressed_first: NDArray[np.int64]
    """Not generated as the first token."""
    previous_id: int
    """``<|startofprev|>``, which precedes the previous text."""
    max_initial_timestamp_index: int | None
    """The latest first timestamp of a transcript, in steps of 0.02 s; unlimited when None."""

    @property
    def end_id(self) -> int:
        """``<|endoftext|>``."""
        return self.kinds.end_id

    def prefix(self, language: str, options: DecodeOptions) -> list[int]:
        """Return the tokens between the previous text and the transcript.

        Raises:
            LanguageError: a language the checkpoint does not list.
            UnsupportedOptionError: a translation by an English-only model.
        """
        if language not in self.languages:
            raise LanguageError(language)
        return prefix_ids(self.tokenizer, language=language, task=options.task, timestamps=options.timestamps)

    def previous(self, options: DecodeOptions) -> list[int]:
        """Return the tokens before the prefix: <|startofprev|> and the end of prompt and previous tokens, or none.

        Special tokens in a prompt are dropped, so that its author cannot control the decoder.
        """
        prompt = self.kinds.text_of(text_ids(self.tokenizer, options.prompt))
        ids = [*prompt, *options.previous_ids][-MAX_PROMPT_TOKENS:]
        return [self.previous_id, *ids] if ids else []

    def text(self, token_ids: tuple[int, ...]) -> str:
        """Decode tokens to text without timestamps and special tokens, stripped."""
        return self.raw_text(token_ids).strip()

    def raw_text(self, token_ids: tuple[int, ...]) -> str:
        """Decode tokens to text without timestamps and special tokens, with its leading space."""
        words = self.kinds.text_of(token_ids)
        return str(self.tokenizer.decode([*words], clean_up_tokenization_spaces=False))

    def utf8(self, token_id: int) -> bytes:
        """Return the bytes of one text token, which may be a part of a character."""
        letters = str(self.tokenizer.convert_ids_to_tokens(token_id))
        if token_id >= self.kinds.timestamps_to:  # an added token is written as it is
            return letters.encode("utf-8")
        return bytes(_byte_codes()[letter] for letter in letters)

    def penalties(self, num_tokens: int, *, timestamps: bool, first: bool) -> NDArray[np.float32]:
        """Return the penalties to add to the logits before a token is chosen.

        Returns:
            (V,) float32: 0, or -inf for a token that may not be generated.
        """
        penalties = np.zeros(num_tokens, dtype=np.float32)
        penalties[self.suppressed] = -np.inf
        if first:
            penalties[self.suppressed_first] = -np.inf
        if not timestamps:
            penalties[self.kinds.timestamps_from : self.kinds.timestamps_to] = -np.inf
        return penalties


def build_vocabulary(tokenizer: Tokenizer, generation: Mapping[str, Any], *, source: str) -> Vocabulary:
    """Read the rules from a tokenizer and the values of its ``generation_config.json``.

    Raises:
        CheckpointError: a generation config without languages or the no-timestamps token.
    """
    no_timestamps: int | None = generation.get("no_timestamps_token_id")
    languages = _language_ids(tokenizer, generation)
    if not languages or no_timestamps is None:
        reason = (
            "generation_config.json lacks lang_to_id or no_timestamps_token_id: take that of its base model, or export "
            "the checkpoint again"
        )
        raise CheckpointError(source, reason)
    codes = tuple(languages)
    end_id = int(tokenizer.eos_token_id)
    marks = range(
        end_id + 1, no_timestamps + 1
    )  # start, languages, tasks, no-speech, no-timestamps: not part of a transcript
    return Vocabulary(
        tokenizer=tokenizer,
        languages=codes,
        language_ids=np.array(list(languages.values()), dtype=np.int64),
        start_id=prefix_ids(tokenizer, language=codes[0], task="transcribe", timestamps=True)[0],
        kinds=TokenKinds(end_id, timestamps_from=no_timestamps + 1),
        no_speech_id=no_timestamps - 1,  # <|nospeech|> in OpenAI's files, <|nocaptions|> in Hugging Face's
        suppressed=_ids([*(generation.get("suppress_tokens") or ()), *marks]),
        suppressed_first=_ids(generation.get("begin_suppress_tokens") or ()),
        previous_id=no_timestamps - 2,  # <|startofprev|>, by its position: not every generation config names it
        max_initial_timestamp_index=generation.get("max_initial_timestamp_index", _MAX_INITIAL_TIMESTAMP_INDEX),
    )


def _language_ids(tokenizer: Tokenizer, generation: Mapping[str, Any]) -> dict[str, int]:
    """Return the token of each language by its ISO 639-1 code. English-only models list none."""
    if is_english_only(tokenizer):
        return {ENGLISH: int(tokenizer.convert_tokens_to_ids(f"<|{ENGLISH}|>"))}
    return {name.strip("<|>"): token for name, token in (generation.get("lang_to_id") or {}).items()}


@cache
def _byte_codes() -> dict[str, int]:
    """Return the byte that each character of a vocabulary file stands for: itself, or the next free one from 256 on.

    Source: GPT-2's ``bytes_to_unicode``, checked against transformers' in test_vocabulary.
    """
    as_they_are = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in as_they_are]
    return {chr(byte): byte for byte in as_they_are} | {chr(256 + index): byte for index, byte in enumerate(others)}


def _ids(values: list[int] | tuple[int, ...]) -> NDArray[np.int64]:
    return np.unique(np.array([value for value in values if value >= 0], dtype=np.int64))
