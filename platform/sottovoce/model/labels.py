"""Encode transcripts as the token ids that the decoder learns to generate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sottovoce.errors import LabelTooLongError, LanguageError, UnsupportedOptionError
from sottovoce.model.tokenizer import Tokenizer
from sottovoce.schema import MAX_CONTEXT_S, MAX_LABEL_TOKENS, SAMPLING_RATE, Example, Task, Utterance

IGNORED = -100  # label value that the loss ignores
TIMESTAMP_STEP_S = 0.02  # between two of Whisper's timestamp tokens

MAX_PROMPT_TOKENS = (
    MAX_LABEL_TOKENS // 2 - 1
)  # of previous text: half of the decoder's positions, as in Whisper, without <|startofprev|>
NUM_TIMESTAMPS = round(MAX_CONTEXT_S / TIMESTAMP_STEP_S) + 1  # <|0.00|> to <|30.00|>
ENGLISH = "en"  # the language of English-only models
_ENGLISH_ONLY_END_ID = 50_256  # <|endoftext|> after GPT-2's vocabulary; the multilingual one has an entry more


@dataclass(frozen=True)
class TokenKinds:
    """Which token ids are text, and which are times. Tokens that were added to a tokenizer stand above all times."""

    end_id: int
    """``<|endoftext|>``; text of Whisper's own tokenizer has lower ids."""
    timestamps_from: int
    """``<|0.00|>``."""

    @property
    def timestamps_to(self) -> int:
        """The first id above ``<|30.00|>``."""
        return self.timestamps_from + NUM_TIMESTAMPS

    def are_text(self, token_ids: ArrayLike) -> NDArray[np.bool_]:
        """Whether each of some tokens is text, Whisper's own or added."""
        ids = np.asarray(token_ids)
        return (ids < self.end_id) | (ids >= self.timestamps_to)

    def are_times(self, token_ids: ArrayLike) -> NDArray[np.bool_]:
        """Whether each of some tokens is a time."""
        ids = np.asarray(token_ids)
        return (ids >= self.timestamps_from) & (ids < self.timestamps_to)

    def text_of(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Return the text tokens in their order."""
        return tuple(token for token in token_ids if token < self.end_id or token >= self.timestamps_to)


@dataclass(frozen=True)
class Labels:
    """The decoder's input tokens for one example, and the target after each."""

    inputs: list[int]
    """(T,) ids, T <= 447: prompt, prefix and text, without the end token."""
    targets: list[int]
    """(T,) the next id after each input; IGNORED where the loss does not count."""


def is_english_only(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer is that of Whisper's English-only models, such as whisper-base.en.

    It has GPT-2's vocabulary, so all its special tokens are one id lower than the multilingual ones. Tokens added to it
    change nothing of that, but they do change the size of the vocabulary, by which openai-whisper decides.
    """
    return int(tokenizer.eos_token_id) == _ENGLISH_ONLY_END_ID


def prefix_ids(tokenizer: Tokenizer, *, language: str, task: Task, timestamps: bool) -> list[int]:
    """Return the tokens that start every transcript: start, language, task, and no-timestamps without timestamps.

    An English-only model was trained without tokens of language and task, though its tokenizer has them.

    Raises:
        LanguageError: a language that has no token, or another than English for an English-only model.
        UnsupportedOptionError: a translation by an English-only model.
    """
    ids = [_token_id(tokenizer, "<|startoftranscript|>")]
    if is_english_only(tokenizer):
        _check_english(language, task)
    else:
        ids += [_token_id(tokenizer, f"<|{name}|>") for name in (language, task)]
        if ids[1] == tokenizer.unk_token_id:
            raise LanguageError(language)
    return ids if timestamps else [*ids, _token_id(tokenizer, "<|notimestamps|>")]


def _check_english(language: str, task: Task) -> None:
    """Refuse what an English-only model cannot do."""
    if language != ENGLISH:
        raise LanguageError(language)
    if task != "transcribe":
        remedy = "its text is English already; transcribe, or take a multilingual model"
        raise UnsupportedOptionError("of an English-only model", f"task {task}", remedy)


def encode_labels(tokenizer: Tokenizer, text: str, *, language: str, task: Task = "transcribe") -> list[int]:
    """Encode a transcript as ids: prefix, text, end token.

    Returns:
        T <= 448 ids. The first is ``decoder_start_token_id``: drop it if the model shifts labels itself, or the start
        token appears twice.

    Raises:
        LabelTooLongError: more than 448 tokens.
        LanguageError: a language that has no token.
    """
    prefix = prefix_ids(tokenizer, language=language, task=task, timestamps=False)
    ids = [*prefix, *text_ids(tokenizer, text), int(tokenizer.eos_token_id)]
    if len(ids) > MAX_LABEL_TOKENS:
        raise LabelTooLongError(len(ids), MAX_LABEL_TOKENS)
    return ids


def encode_example(
    tokenizer: Tokenizer,
    example: Example,
    *,
    num_samples: Sequence[int],
    timestamps: bool = False,
    previous_text: bool = False,
) -> Labels | None:
    """Encode the transcripts of an example as the decoder's labels.

    With timestamps, each utterance is between its start and its end in the joined audio. The previous text precedes
    everything, and the loss ignores it. An example without speech has two targets: the no-speech token at the first
    position, where recognizers read its probability, and an end token directly after the prefix. Labels that do not
    fit the decoder are written without timestamps, and then without previous text.

    Args:
        tokenizer: of the model in training.
        example: one or several utterances, joined without gaps.
        num_samples: samples of each utterance in the joined audio; 0 if it could not be decoded, and its text is left
            out.
        timestamps: include timestamp tokens.
        previous_text: begin with the last tokens of the example's previous text, if it has one.

    Returns:
        The labels; None if no utterance could be decoded.

    Raises:
        LabelTooLongError: the texts alone take more than 448 tokens.
        LanguageError: a language that has no token.
    """
    if not any(num_samples):
        return None
    pieces = _spoken_pieces(example, num_samples)
    ids = _transcript_ids(tokenizer, example, pieces, timestamps=timestamps)
    targets = ids[1:] if pieces else [_no_speech_id(tokenizer), *[IGNORED] * (len(ids) - 3), ids[-1]]
    room = MAX_LABEL_TOKENS - len(ids)
    prompt = _prompt_ids(tokenizer, example.previous_text, room=room) if previous_text else []
    return Labels(inputs=[*prompt, *ids[:-1]], targets=[*[IGNORED] * len(prompt), *targets])


def used_token_ids(tokenizer: Tokenizer, utterances: Iterable[Utterance]) -> set[int]:
    """Return the tokens in the labels of these utterances: prefixes, texts and the end token, without timestamps.

    Raises:
        LanguageError: a language that has no token.
    """
    texts: set[str] = set()
    kinds: set[tuple[str, Task]] = set()
    for utterance in utterances:
        texts.add(f" {utterance.text.strip()}")
        kinds.add((utterance.language, utterance.task))
    used = {int(tokenizer.eos_token_id)}
    for language, task in kinds:
        used.update(prefix_ids(tokenizer, language=language, task=task, timestamps=False))
    if texts:
        used.update(*tokenizer(sorted(texts), add_special_tokens=False).input_ids)
    return used


@dataclass(frozen=True)
class _Piece:
    """One utterance's text, and its span of samples in the joined audio."""

    text: str
    start: int
    end: int


def _spoken_pieces(example: Example, num_samples: Sequence[int]) -> list[_Piece]:
    """Return the decoded utterances that contain speech."""
    pieces, start = [], 0
    for utterance, length in zip(example.utterances, num_samples, strict=True):
        if length and utterance.text.strip():
            pieces.append(_Piece(utterance.text.strip(), start, start + length))
        start += length
    return pieces


def _transcript_ids(tokenizer: Tokenizer, example: Example, pieces: Sequence[_Piece], *, timestamps: bool) -> list[int]:
    """Return prefix, text and end token; with timestamps if ``timestamps`` and they fit."""
    language, task = example.utterances[0].language, example.utterances[0].task
    # With timestamps, an English-only prefix is the start token alone. There the no-speech token of silence is learned,
    # so the end token needs a position after it.
    if timestamps and (pieces or not is_english_only(tokenizer)):
        ids = prefix_ids(tokenizer, language=language, task=task, timestamps=True)
        for piece in pieces:
            start, end = (_timestamp_id(tokenizer, sample / SAMPLING_RATE) for sample in (piece.start, piece.end))
            ids += [start, *text_ids(tokenizer, piece.text), end]
        if len(ids) < MAX_LABEL_TOKENS:
            return [*ids, int(tokenizer.eos_token_id)]
    return encode_labels(tokenizer, " ".join(piece.text for piece in pieces), language=language, task=task)


def _prompt_ids(tokenizer: Tokenizer, text: str | None, *, room: int) -> list[int]:
    """Return <|startofprev|> and the last tokens of the text that fit; empty without text or room."""
    num_tokens = min(MAX_PROMPT_TOKENS, room - 1)
    ids = text_ids(tokenizer, text or "")[-num_tokens:] if num_tokens > 0 else []
    return [_token_id(tokenizer, "<|startofprev|>"), *ids] if ids else []


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode a text with the leading space that Whisper's texts begin with; empty for an empty text."""
    spoken = text.strip()
    return cast(list[int], tokenizer(f" {spoken}", add_special_tokens=False).input_ids) if spoken else []


def _timestamp_id(tokenizer: Tokenizer, seconds: float) -> int:
    """Return the token of a time, rounded to 0.02 s."""
    step = min(round(seconds / TIMESTAMP_STEP_S), NUM_TIMESTAMPS - 1)
    return _token_id(tokenizer, "<|notimestamps|>") + 1 + step


def _no_speech_id(tokenizer: Tokenizer) -> int:
    """Return the id before no-timestamps: OpenAI names it ``<|nospeech|>``, Hugging Face's ``<|nocaptions|>``."""
    return _token_id(tokenizer, "<|notimestamps|>") - 1


def _token_id(tokenizer: Tokenizer, name: str) -> int:
    return cast(int, tokenizer.convert_tokens_to_ids(name))
