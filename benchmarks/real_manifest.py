"""Write the manifest of ``adapted_context``:  ``python -m benchmarks.real_manifest --output FOLDER/manifest.jsonl``.

The recordings are of ten languages and of several public sources. Two English sources, and every second recording of
the other languages' largest source, are the test; of the rest every sixth recording of a source validates.
"""

import json
from collections import Counter
from pathlib import Path

from sottovoce.audio.decode import read_audio
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.manifest import write_manifest
from sottovoce.schema import MAX_CONTEXT_S, SAMPLING_RATE, Split, Utterance

_ENGLISH_TEST = ("coqui-ai", "speechbrain")
_LARGEST = "sebastian-software"


class RealManifest(Config):
    """Divide ordinary speech by source and language."""

    output: Path
    """Manifest to write."""
    source: Path = Path("../shared/data/real")
    """Folder with recordings and ``manifest.jsonl``: audio, text, language and source of each."""
    max_duration_s: float = MAX_CONTEXT_S
    """Longest recording that is taken."""


def main(config: RealManifest) -> None:
    """Write the manifest."""
    setup_logging()
    lines = (config.source / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    seen: Counter[tuple[str, str]] = Counter()
    utterances: list[Utterance] = []
    for number, row in enumerate(map(json.loads, lines)):
        seen[row["language"], row["source"]] += 1
        path = (config.source / row["audio"]).resolve()
        utterances.append(
            Utterance(
                id=f"real-{number:03d}",
                audio=str(path),
                duration_s=round(len(read_audio(path)) / SAMPLING_RATE, 3),
                text=row["text"],
                language=row["language"],
                speaker=row.get("speaker"),
                corpus=row["source"].split("/")[-1],
                split=_choose_split(row["language"], row["source"], seen[row["language"], row["source"]]),
            )
        )
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_manifest([one for one in utterances if one.duration_s <= config.max_duration_s], config.output)


def _choose_split(language: str, source: str, number: int) -> Split:
    """Return the split of the ``number``-th recording of a source in a language, from 1 on."""
    owner = source.split("/")[0]
    if owner in _ENGLISH_TEST if language == "en" else owner == _LARGEST and number % 2 == 0:
        return "test"
    return "validation" if number % 6 == 5 else "train"


if __name__ == "__main__":
    main(load_config(RealManifest))
