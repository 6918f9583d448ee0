"""Build Whisper's multilingual tokenizer offline from the tiktoken file of openai-whisper."""

import json
import tempfile
from pathlib import Path

from transformers import WhisperTokenizer, WhisperTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from sottovoce.text.languages import LANGUAGES

NUM_LANGUAGES = 99  # in the vocabulary of 51 865 tokens; large-v3 added Cantonese as the hundredth
_END_OF_TEXT = "<|endoftext|>"
_TASK_TOKENS = (
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
_TIMESTAMP_TOKENS = tuple(f"<|{hundredths / 50:.2f}|>" for hundredths in range(1_501))  # 0.00 to 30.00 s
_GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def build_tokenizer(tiktoken_file: Path, spelling_file: Path) -> WhisperTokenizerFast:
    """Convert ``multilingual.tiktoken`` and the English spelling map to a Hugging Face tokenizer.

    Args:
        tiktoken_file: ``whisper/assets/multilingual.tiktoken`` of the openai-whisper package.
        spelling_file: ``whisper/normalizers/english.json`` of the same package.

    Returns:
        The tokenizer, with 51 865 ids in Whisper's order.
    """
    vocabulary, merges = TikTokenConverter(
        vocab_file=str(tiktoken_file), pattern=_GPT2_PATTERN
    ).extract_vocab_merges_from_model(str(tiktoken_file))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        vocabulary[_END_OF_TEXT] = len(vocabulary)
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        slow = WhisperTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), str(spelling_file), model_max_length=448
        )
        languages = [f"<|{code}|>" for code in list(LANGUAGES)[:NUM_LANGUAGES]]
        specials = [_END_OF_TEXT, "<|startoftranscript|>", *languages, *_TASK_TOKENS]
        slow.add_special_tokens({"pad_token": _END_OF_TEXT, "additional_special_tokens": specials})
        slow.add_tokens(list(_TIMESTAMP_TOKENS))
        slow.save_pretrained(folder / "slow")
        fast: WhisperTokenizerFast = WhisperTokenizerFast.from_pretrained(folder / "slow", from_slow=True)
        return fast
