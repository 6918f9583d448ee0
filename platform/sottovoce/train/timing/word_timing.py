"""Word times of a trained checkpoint: its alignment heads found, written and put on record."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayError
from torch import nn

from sottovoce.errors import SottovoceError
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.record import AlignmentRecord
from sottovoce.train.timing.alignment_heads import choose_heads, write_heads
from sottovoce.train.timing.timed_speech import join_utterances

logger = logging.getLogger(__name__)

_MAX_WINDOWS = 32  # of up to four utterances: about a hundred known boundaries


def derive_after_run(
    folder: Path, utterances: Sequence[Utterance], *, device: Literal["cpu", "cuda"]
) -> AlignmentRecord:
    """Derive the heads of the checkpoint a run has made, where the run has computed.

    Whatever fails here, hours of training come out all the same: the base model's heads stay, and the record says why.

    Args:
        folder: of the checkpoint, complete; on storage that the cluster reaches.
        utterances: with known texts, the validation split's first.
        device: with cuda a task on one GPU of the cluster, which the run has left.
    """
    try:
        if device == "cpu":
            return derive_alignment_heads(folder, utterances, device=device)
        derive: Any = derive_alignment_heads  # ray's types know no keyword arguments
        record: AlignmentRecord = ray.get(ray.remote(num_gpus=1)(derive).remote(folder, utterances, device=device))
    except (SottovoceError, RayError, OSError, RuntimeError, MemoryError) as error:  # torch's are the last two
        reason = str(error) if isinstance(error, SottovoceError) else f"{type(error).__name__}: {error}"
        logger.warning("alignment heads stay as the base model has them: %s", reason)
        return AlignmentRecord(heads=_named_heads(folder), is_derived=False, remark=reason)
    return record


def derive_alignment_heads(
    folder: Path, utterances: Sequence[Utterance], *, device: Literal["cpu", "cuda"]
) -> AlignmentRecord:
    """Find which heads of a checkpoint follow the sound, and name them in its generation config.

    Known times come from utterances joined with gaps; see ``choose_heads`` for the method. Three seconds of one core
    with the embedded micro.

    Args:
        folder: of the checkpoint or the adapter; its generation_config.json is written.
        utterances: with known texts; the first that fit are used.
        device: to compute on.

    Returns:
        What was found; the heads as they were where the utterances are too few or too long to be joined.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
    """
    checkpoint = load_checkpoint(folder)
    nn.Module.to(checkpoint.model, device=device)
    speech = join_utterances(utterances, max_s=checkpoint.context.max_s, max_examples=_MAX_WINDOWS)
    choice = choose_heads(checkpoint, speech)
    if choice is None:
        max_s = checkpoint.context.max_s
        remark = f"no two of {len(utterances)} utterances, one after the other, fit into {max_s:g} s together"
        logger.warning("alignment heads stay as they are: %s", remark)
        return AlignmentRecord(heads=_named_heads(folder), is_derived=False, remark=remark)
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


def _named_heads(folder: Path) -> tuple[tuple[int, int], ...]:
    """Read what the generation config names, right or not."""
    path = folder / "generation_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple((layer, head) for layer, head in values.get("alignment_heads") or ())
