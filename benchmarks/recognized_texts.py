"""What systems wrote for a set of utterances, kept on disk so that a run that was killed goes on."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.whisper_systems import ModelFolders, ModelName, Recognize, System, load_system
from sottovoce.audio.decode import read_audio
from sottovoce.schema import Utterance

logger = logging.getLogger(__name__)

_SAVED_AT_ONCE = 16  # utterances: what a killed run loses


def recognize_all(
    system: System,
    utterances: Sequence[Utterance],
    *,
    folders: Mapping[ModelName, ModelFolders],
    num_threads: int,
    path: Path,
) -> list[str]:
    """Recognize what ``path`` does not hold yet of these utterances by these weights.

    Args:
        system: by which.
        utterances: U, each at most 30 s.
        folders: of each model.
        num_threads: threads of one call.
        path: JSON file that keeps the texts.

    Returns:
        (U,) texts.

    Raises:
        CheckpointError: a system that cannot be loaded.
        AudioError: a recording that cannot be read.
    """
    weights = folders[system.model].fingerprint
    texts = _read(path, weights=weights)
    missing = sorted((one for one in utterances if one.id not in texts), key=lambda one: one.duration_s)
    recognize = load_system(system, folders, num_threads=num_threads) if missing else None
    for first in range(0, len(missing), _SAVED_AT_ONCE):
        assert recognize is not None, "something is missing"
        group = missing[first : first + _SAVED_AT_ONCE]
        texts.update(_recognize_group(recognize, system, group))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"weights": weights, "texts": texts}, indent=1), encoding="utf-8")
        logger.info("%s: %d of %d utterances", system.name, len(texts), len(utterances))
    return [texts[one.id] for one in utterances]


def _recognize_group(recognize: Recognize, system: System, utterances: Sequence[Utterance]) -> dict[str, str]:
    """Recognize utterances of like length; faster-whisper one at a time, as its batches have no fallback."""
    waveforms = [read_audio(one.audio, start_s=one.start_s, duration_s=one.duration_s) for one in utterances]
    batch_size = 8 if system.engine == "sottovoce" else 1
    written = recognize(waveforms, batch_size=batch_size)
    return {one.id: text for one, text in zip(utterances, written, strict=True)}


def _read(path: Path, *, weights: str) -> dict[str, str]:
    """Read texts; none where other weights wrote them."""
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return dict(kept["texts"]) if kept["weights"] == weights else {}
