"""Text to the token ids the decoder learns to write."""

from typing import cast

from transformers import WhisperTokenizerFast

from sottovoce.errors import LabelTooLongError, LanguageError
from sottovoce.schema import MAX_LABEL_TOKENS, Task

IGNORED = -100  # label value that the loss leaves out


def prefix_ids(tokenizer: WhisperTokenizerFast, *, language: str, task: Task, timestamps: bool) -> list[int]:
    """Give the tokens every transcript starts with: start, language, task, and no-timestamps where none are written.

    Raises:
        LanguageError: a language that has no token.
    """
    names = ["<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>"]
    if not timestamps:
        names.append("<|notimestamps|>")
    ids = [cast(int, tokenizer.convert_tokens_to_ids(name)) for name in names]
    if ids[1] == tokenizer.unk_token_id:
        raise LanguageError(language)
    return ids


def encode_labels(tokenizer: WhisperTokenizerFast, text: str, *, language: str, task: Task = "transcribe") -> list[int]:
    """Turn a transcript into labels: prefix, text, end token.

    Returns:
        T <= 448 ids. The first is ``decoder_start_token_id``: drop it where the model shifts labels itself, or the
        start token stands twice.

    Raises:
        LabelTooLongError: more than 448 tokens.
        LanguageError: a language that has no token.
    """
    text_ids = tokenizer(f" {text.strip()}" if text.strip() else "", add_special_tokens=False).input_ids
    ids = [*prefix_ids(tokenizer, language=language, task=task, timestamps=False), *text_ids, tokenizer.eos_token_id]
    if len(ids) > MAX_LABEL_TOKENS:
        raise LabelTooLongError(len(ids), MAX_LABEL_TOKENS)
    return ids
