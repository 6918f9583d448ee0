"""Which tokens a decoder may write: the rules every engine shares, read from a checkpoint's files.

Shapes: V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import GenerationConfig, WhisperTokenizerFast

from sottovoce.errors import CheckpointError, LanguageError
from sottovoce.model.labels import prefix_ids
from sottovoce.schema import DecodeOptions


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A model's tokens, and the ones it may not write."""

    tokenizer: WhisperTokenizerFast
    languages: tuple[str, ...]
    """ISO 639-1 codes, in the order of ``language_ids``."""
    language_ids: NDArray[np.int64]
    start_id: int
    """``<|startoftranscript|>``."""
    end_id: int
    """``<|endoftext|>``."""
    no_speech_id: int
    suppressed: NDArray[np.int64]
    """Never written: the checkpoint's list, and every token that names a language, a task or a mark."""
    suppressed_first: NDArray[np.int64]
    """Not written as the first token."""
    timestamps_from: int
    """The id of ``<|0.00|>``; timestamps are this id and all above."""

    def prefix(self, language: str, options: DecodeOptions) -> list[int]:
        """Give the tokens before the transcript.

        Raises:
            LanguageError: a language the checkpoint does not list.
        """
        if language not in self.languages:
            raise LanguageError(language)
        return prefix_ids(self.tokenizer, language=language, task=options.task, timestamps=options.timestamps)

    def text(self, token_ids: tuple[int, ...]) -> str:
        """Turn tokens into text without timestamps and special tokens, stripped."""
        words = [token for token in token_ids if token < self.end_id]
        return self.tokenizer.decode(words, clean_up_tokenization_spaces=False).strip()

    def penalties(self, num_tokens: int, *, timestamps: bool, first: bool) -> NDArray[np.float32]:
        """Give what is added to the logits before the choice.

        Returns:
            (V,) float32: 0, or -inf for a token that may not be written.
        """
        penalties = np.zeros(num_tokens, dtype=np.float32)
        penalties[self.suppressed] = -np.inf
        if first:
            penalties[self.suppressed_first] = -np.inf
        if not timestamps:
            penalties[self.timestamps_from :] = -np.inf
        return penalties


def build_vocabulary(tokenizer: WhisperTokenizerFast, generation: GenerationConfig, *, source: str) -> Vocabulary:
    """Read the rules from a tokenizer and its generation config.

    Raises:
        CheckpointError: a generation config without languages or the no-timestamps token.
    """
    languages: dict[str, int] | None = getattr(generation, "lang_to_id", None)
    no_timestamps: int | None = getattr(generation, "no_timestamps_token_id", None)
    if not languages or no_timestamps is None:
        reason = (
            "generation_config.json lacks lang_to_id or no_timestamps_token_id; only multilingual Whispers are read"
        )
        raise CheckpointError(source, reason)
    codes = tuple(name.strip("<|>") for name in languages)
    end_id = int(tokenizer.eos_token_id)
    marks = range(end_id + 1, no_timestamps + 1)  # start, languages, tasks, no-speech, no-timestamps: no transcript
    return Vocabulary(
        tokenizer=tokenizer,
        languages=codes,
        language_ids=np.array(list(languages.values()), dtype=np.int64),
        start_id=prefix_ids(tokenizer, language=codes[0], task="transcribe", timestamps=True)[0],
        end_id=end_id,
        no_speech_id=no_timestamps - 1,  # <|nospeech|> in OpenAI's files, <|nocaptions|> in Hugging Face's
        suppressed=_ids([*(generation.suppress_tokens or ()), *marks]),
        suppressed_first=_ids(generation.begin_suppress_tokens or ()),
        timestamps_from=no_timestamps + 1,
    )


def _ids(values: list[int] | tuple[int, ...]) -> NDArray[np.int64]:
    return np.unique(np.array([value for value in values if value >= 0], dtype=np.int64))
