"""What systems wrote for a set of utterances, kept on disk so that a run that was killed goes on."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.whisper_systems import ModelFolders, ModelName, Recognize, System, load_system
from sottovoce.atomic_write import atomic_write
from sottovoce.audio.decode import read_audio
from sottovoce.schema import Utterance

logger = logging.getLogger("sottovoce.benchmarks.recognized_texts")  # shown by setup_logging, as the package is

_BATCH_SIZE = 8  # utterances that we recognize and save at once: what a killed run loses


def recognize_all(
    system: System,
    utterances: Sequence[Utterance],
    *,
    folders: Mapping[ModelName, ModelFolders],
    num_threads: int,
    path: Path,
) -> list[str]:
    """Recognize what ``path`` does not hold yet of these utterances by these weights.

    Progress is a bar on a terminal, and log lines elsewhere.

    Args:
        system: by which.
        utterances: U, of any languages; each at most 30 s, unless the system has a long form.
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
    missing = [one for one in utterances if one.id not in texts]
    if missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        recognize = load_system(system, folders, num_threads=num_threads)
        console = Console(stderr=True)
        groups = track(_group(missing), system.name, console=console, disable=not console.is_terminal)
        for group in groups:
            texts.update(_recognize_group(recognize, system, group))
            atomic_write(path, json.dumps({"weights": weights, "texts": texts}, indent=1, ensure_ascii=False))
            if not console.is_terminal:
                logger.info("%s: %d utterances are recognized", system.name, len(texts))
    return [texts[one.id] for one in utterances]


def _group(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Group utterances of one language and of like length."""
    groups: list[list[Utterance]] = []
    for one in sorted(utterances, key=lambda one: (one.language, one.duration_s)):
        if not groups or len(groups[-1]) == _BATCH_SIZE or groups[-1][0].language != one.language:
            groups.append([])
        groups[-1].append(one)
    return groups


def _recognize_group(recognize: Recognize, system: System, utterances: Sequence[Utterance]) -> dict[str, str]:
    """Recognize utterances of one language; faster-whisper one at a time, as its batches have no fallback."""
    waveforms = [read_audio(one.audio, start_s=one.start_s, duration_s=one.duration_s) for one in utterances]
    batch_size = _BATCH_SIZE if system.engine == "sottovoce" else 1
    written = recognize(waveforms, batch_size=batch_size, language=utterances[0].language)
    return {one.id: text for one, text in zip(utterances, written, strict=True)}


def _read(path: Path, *, weights: str) -> dict[str, str]:
    """Read texts; none where other weights wrote them."""
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return dict(kept["texts"]) if kept["weights"] == weights else {}
