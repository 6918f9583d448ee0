"""Derive a trained model's alignment heads: the cross-attention heads that word times are read from.

A fine-tuned model attends differently from its base model, and one trained on other audio contexts even more so: the
heads named by a stock generation config may no longer follow the sound. So heads are chosen anew, on speech with known
times.

Shapes: H heads, T tokens read, P positions of sound (50 per second).
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AliasChoices, Field
from torch import Tensor, nn

from sottovoce.atomic_write import atomic_write
from sottovoce.audio.features import log_mel_batch
from sottovoce.errors import CheckpointError
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.labels import prefix_ids
from sottovoce.schema import POSITIONS_PER_SECOND, SAMPLING_RATE, Record, Utterance
from sottovoce.words.alignment import align_words, count_positions, smooth_weights, token_starts
from sottovoce.words.cross_attention import Head, alignment_heads, all_heads, attention_scores
from sottovoce.words.timed_speech import TimedSpeech, join_utterances, word_errors
from sottovoce.words.word_tokens import split_words

logger = logging.getLogger(__name__)

_MAX_HEADS = 10
_MAX_CANDIDATES = 20  # heads whose joint error is measured; the others do not follow the sound
_MAX_TOKENS = 160  # of one window: scores of all heads of large-v3 over 30 s are then 0.6 GB
_LARGEST_ERROR_S = 0.3  # errors of boundaries are clipped to it
_TOLERANCE = 0.02  # of the smallest error: within it more heads are preferred, since their mean is more stable
_MAX_WINDOWS = 32  # of up to four utterances: about a hundred known boundaries


class AlignmentRecord(Record):
    """The heads that word times are read from, and the error of the times."""

    heads: tuple[tuple[int, int], ...]
    """Decoder layer and head, as in the generation config."""
    is_derived: bool
    """Whether they were derived from the trained model; False if the base model's were kept."""
    error_s: float | None = None
    """Median error of word starts and ends at the known starts and ends of utterances."""
    error_before_s: float | None = None
    """The same with the base model's heads; None if they do not fit the decoder."""
    num_times: int = 0
    """Known starts and ends that were compared."""
    num_windows: int = 0
    """Windows of joined utterances that contain them."""
    reason: str = Field(default="", validation_alias=AliasChoices("reason", "remark"))
    """Why nothing was measured; release 0.1 wrote ``remark``."""


@dataclass(frozen=True)
class HeadChoice:
    """The chosen heads, and the errors of word times with them and with the heads named before."""

    heads: tuple[Head, ...]
    is_new: bool
    """False if the heads named before are as good as any."""
    error_s: float
    """Median error of word starts and ends."""
    error_before_s: float | None
    """The same with the heads that the generation config named; None if it named none, or some the decoder lacks."""
    num_times: int
    """Known starts and ends that were compared."""


@dataclass(frozen=True, eq=False)
class _Reading:
    """One encoded window with the decoder's input tokens."""

    speech: TimedSpeech
    encoded: Tensor
    token_ids: tuple[int, ...]
    """(T,) prefix, text, end token."""
    prefix_length: int
    boundaries: tuple[tuple[int, float, float], ...]
    """Row among the text tokens and the end token, and the pause [s] in which its time should lie."""

    @property
    def num_positions(self) -> int:
        return count_positions(len(self.speech.waveform))


def choose_heads(checkpoint: Checkpoint, speech: Sequence[TimedSpeech]) -> HeadChoice | None:
    """Choose the heads whose mean attention finds known boundaries best.

    First all heads are ranked by the share of their weight on the piece that each token belongs to. Of the best twenty,
    heads are added one by one: each time the one that brings the boundaries found by dynamic time warping closest, on
    average, to their pauses. The choice is deterministic. The heads named before are kept if they are as good, or time
    the words better: those of stock models were chosen on far more speech.

    Args:
        checkpoint: its model is not changed or moved.
        speech: windows of at most the model's longest context.

    Returns:
        The choice; None if no speech has two pieces.
    """
    readings = [reading for one in speech if (reading := _read(checkpoint, one)) is not None]
    if not readings:
        return None
    candidates = _rank(checkpoint, readings)[:_MAX_CANDIDATES]
    heads, error = _add_one_by_one(checkpoint, readings, candidates)
    errors = _word_errors(checkpoint, readings, heads)
    before = _heads_before(checkpoint)
    if before is None:
        return HeadChoice(heads, is_new=True, error_s=_median(errors), error_before_s=None, num_times=len(errors))
    errors_before = _word_errors(checkpoint, readings, before)
    is_new = _joint_error(checkpoint, readings, before) > (1.0 + _TOLERANCE) * error and _median(errors) < _median(
        errors_before
    )
    return HeadChoice(
        heads=heads if is_new else before,
        is_new=is_new,
        error_s=_median(errors if is_new else errors_before),
        error_before_s=_median(errors_before),
        num_times=len(errors),
    )


def measure_heads(checkpoint: Checkpoint, speech: Sequence[TimedSpeech], heads: Sequence[Head]) -> list[float]:
    """Measure word times with given heads, as a recognizer computes them for the known transcript.

    Returns:
        Errors [s] of the start and end of each piece in turn; see ``word_errors``.
    """
    readings = [reading for one in speech if (reading := _read(checkpoint, one)) is not None]
    return _word_errors(checkpoint, readings, heads)


def write_heads(folder: Path, heads: Sequence[Head]) -> None:
    """Write the heads into a checkpoint's generation config; leave everything else in it unchanged.

    Raises:
        CheckpointError: no generation config.
    """
    path = folder / "generation_config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(folder, f"{path.name}: {error}") from error
    values["alignment_heads"] = [list(head) for head in heads]
    atomic_write(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def _read(checkpoint: Checkpoint, speech: TimedSpeech) -> _Reading | None:
    """Encode a window; None if its text is too long or it has only one piece."""
    prefix = prefix_ids(checkpoint.tokenizer, language=speech.language, task="transcribe", timestamps=False)
    pieces = [checkpoint.tokenizer(f" {piece.text}", add_special_tokens=False).input_ids for piece in speech.pieces]
    token_ids = (*prefix, *(token for piece in pieces for token in piece), int(checkpoint.tokenizer.eos_token_id))
    if len(pieces) < 2 or len(token_ids) > _MAX_TOKENS:
        return None
    duration_s = len(speech.waveform) / SAMPLING_RATE
    rows = np.cumsum([len(piece) for piece in pieces])
    next_starts = [*(piece.start_s for piece in speech.pieces[1:]), duration_s]
    return _Reading(
        speech=speech,
        encoded=_encode(checkpoint, speech),
        token_ids=token_ids,
        prefix_length=len(prefix),
        boundaries=tuple(
            (int(row), piece.end_s, start_s)
            for row, piece, start_s in zip(rows, speech.pieces, next_starts, strict=True)
        ),
    )


def _encode(checkpoint: Checkpoint, speech: TimedSpeech) -> Tensor:
    context = checkpoint.context
    spectrogram = log_mel_batch(
        [speech.waveform],
        num_mel_bins=checkpoint.num_mel_bins,
        num_frames=context.num_frames_for(len(speech.waveform) / SAMPLING_RATE),
        padding=context.padding,
    )
    model = checkpoint.model
    with torch.no_grad():
        features = torch.from_numpy(spectrogram).to(device=model.device, dtype=model.dtype)
        encoded: Tensor = model.model.encoder(features).last_hidden_state
    return encoded


def _scores(checkpoint: Checkpoint, reading: _Reading, heads: Sequence[Head]) -> NDArray[np.float32]:
    return attention_scores(checkpoint.model, reading.encoded, reading.token_ids, heads=heads)


def _rank(checkpoint: Checkpoint, readings: Sequence[_Reading]) -> list[Head]:
    """Sort all heads by the share of their weight on the right piece, the largest first."""
    heads = all_heads(checkpoint.model)
    shares = np.zeros(len(heads))
    for reading in readings:
        shares += _shares(_scores(checkpoint, reading, heads), reading)
    return [heads[index] for index in np.argsort(-shares, kind="stable")]


def _shares(scores: NDArray[np.float32], reading: _Reading) -> NDArray[np.float64]:
    """Return (H,): the mean over the text tokens of the weight within each token's piece."""
    real = scores[:, reading.prefix_length - 1 : -2, : reading.num_positions]  # each row predicts the next token
    weights = np.exp(real - real.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    total = np.zeros(len(scores))
    first = 0
    for piece, (row, _, _) in zip(reading.speech.pieces, reading.boundaries, strict=True):
        start, end = (round(at_s * POSITIONS_PER_SECOND) for at_s in (piece.start_s, piece.end_s))
        total += weights[:, first:row, start:end].sum(axis=(1, 2), dtype=np.float64)
        first = row
    shares: NDArray[np.float64] = total / real.shape[1]
    return shares


def _add_one_by_one(
    checkpoint: Checkpoint, readings: Sequence[_Reading], candidates: Sequence[Head]
) -> tuple[tuple[Head, ...], float]:
    """Add the head that minimizes the error, up to ten times; keep as many as gave the smallest error."""
    smooth = _smooth(checkpoint, readings, candidates)
    chosen: list[int] = []
    errors: list[float] = []
    while len(chosen) < min(_MAX_HEADS, len(candidates)):
        left = [index for index in range(len(candidates)) if index not in chosen]
        tried = _boundary_errors(smooth, readings, [[*chosen, index] for index in left])
        best = int(np.argmin(tried))
        chosen.append(left[best])
        errors.append(tried[best])
    good = [size for size, error in enumerate(errors, start=1) if error <= (1.0 + _TOLERANCE) * min(errors)]
    return tuple(sorted(candidates[index] for index in chosen[: max(good)])), errors[max(good) - 1]


def _joint_error(checkpoint: Checkpoint, readings: Sequence[_Reading], heads: Sequence[Head]) -> float:
    return _boundary_errors(_smooth(checkpoint, readings, heads), readings, [range(len(heads))])[0]


def _smooth(checkpoint: Checkpoint, readings: Sequence[_Reading], heads: Sequence[Head]) -> list[NDArray[np.float32]]:
    """Return the smoothed weights (H, T, P) of each window; see ``smooth_weights``."""
    return [smooth_weights(_scores(checkpoint, one, heads), num_positions=one.num_positions) for one in readings]


def _boundary_errors(
    smooth: Sequence[NDArray[np.float32]], readings: Sequence[_Reading], choices: Sequence[Sequence[int]]
) -> list[float]:
    """Return the mean distance [s] of the boundaries from their pauses for each choice; 0 within a pause.

    Args:
        smooth: (H, T, P) of each window.
        readings: the windows.
        choices: indices of heads; each choice has as many.
    """
    distances: list[NDArray[np.float64]] = []
    for weights, reading in zip(smooth, readings, strict=True):
        starts = token_starts(weights[np.asarray(choices)], prefix_length=reading.prefix_length)
        for row, begin, end in reading.boundaries:
            early, late = begin - starts[:, row], starts[:, row] - end
            distances.append(np.clip(np.maximum(early, late), 0.0, _LARGEST_ERROR_S))
    return [float(error) for error in np.mean(distances, axis=0)]


def _heads_before(checkpoint: Checkpoint) -> tuple[Head, ...] | None:
    """Return the heads that the generation config names; None if it names none, or some the decoder lacks."""
    if not getattr(checkpoint.model.generation_config, "alignment_heads", None):
        return None
    try:
        return alignment_heads(checkpoint.model)
    except CheckpointError as error:
        logger.info("%s", error)
        return None


def _word_errors(checkpoint: Checkpoint, readings: Sequence[_Reading], heads: Sequence[Head]) -> list[float]:
    """Time the words as a recognizer does, and compare them with the known times."""
    errors: list[float] = []
    for reading in readings:
        text = reading.token_ids[reading.prefix_length : -1]
        words = align_words(
            _scores(checkpoint, reading, heads),
            np.zeros(len(reading.token_ids) - 1, dtype=np.float32),  # not used
            split_words(checkpoint.tokenizer, text, language=reading.speech.language),
            prefix_length=reading.prefix_length,
            waveform=reading.speech.waveform,
        )
        errors += word_errors(words, reading.speech) or []
    return errors


def _median(errors: Sequence[float]) -> float:
    return round(float(np.median(np.abs(errors))), 4) if errors else float("nan")


def derive_alignment_heads(
    folder: Path, utterances: Sequence[Utterance], *, device: Literal["cpu", "cuda"]
) -> AlignmentRecord:
    """Choose a checkpoint's alignment heads, and write them into its generation config.

    Known times come from utterances joined with gaps; see ``choose_heads`` for the method. It takes 3 s on one core
    with the embedded micro.

    Args:
        folder: of the checkpoint or the adapter; its generation_config.json is rewritten.
        utterances: with references; the first that fit are used.
        device: where to compute.

    Returns:
        The heads and their errors; the heads are unchanged if the utterances are too few or too long to be joined.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
    """
    checkpoint = load_checkpoint(folder)
    nn.Module.to(checkpoint.model, device=device)
    speech = join_utterances(utterances, max_s=checkpoint.context.max_s, max_examples=_MAX_WINDOWS)
    choice = choose_heads(checkpoint, speech)
    if choice is None:
        max_s = checkpoint.context.max_s
        reason = f"no two of {len(utterances)} utterances, one after the other, fit into {max_s:g} s together"
        logger.warning("alignment heads are not changed: %s", reason)
        return AlignmentRecord(heads=named_heads(folder), is_derived=False, reason=reason)
    if choice.is_new:
        write_heads(folder, choice.heads)
    logger.info(
        "alignment heads %s: median error of word times %.3f s; %s with those named before",
        list(choice.heads),
        choice.error_s,
        "none" if choice.error_before_s is None else f"{choice.error_before_s:.3f} s",
    )
    return AlignmentRecord(
        heads=choice.heads,
        is_derived=choice.is_new,
        error_s=choice.error_s,
        error_before_s=choice.error_before_s,
        num_times=choice.num_times,
        num_windows=len(speech),
    )


def named_heads(folder: Path) -> tuple[tuple[int, int], ...]:
    """Read the heads that the generation config names, without checking them."""
    path = folder / "generation_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple((layer, head) for layer, head in values.get("alignment_heads") or ())
