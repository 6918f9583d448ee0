"""A pool of synthetic utterances on disk, made once by several processes; the seed determines texts and voices.

A shard is an int16 file with the samples of its utterances concatenated, and a JSON file with one row per utterance.
"""

import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import track

from sottovoce.audio.waveform import from_pcm, to_pcm
from sottovoce.demo.grammar import Grammar, load_grammar, write_sentence
from sottovoce.demo.speech import TRAINING_VOICES, Voice, speak
from sottovoce.schema import SAMPLING_RATE, Pcm, Waveform

logger = logging.getLogger(__name__)

_SHARD_SIZE = 500  # utterances, about 25 minutes of speech
_SILENCE_LEVEL = 0.005  # of full scale; espeak-ng writes exact zeros around speech
_SYMBOL_WEIGHTS = {"sentence": 0.68, "phrase": 0.2, "digit_string": 0.12}  # guess: digits matter to the recipes


@dataclass(frozen=True, kw_only=True)
class PooledUtterance:
    """One row of a shard."""

    text: str
    voice: str
    start: int
    """First sample in the shard's file."""
    num_samples: int


class SpeechPool:
    """The utterances of all shards of a folder, sorted by duration for fast search by length."""

    def __init__(self, folder: Path) -> None:
        self._files: list[np.memmap[tuple[int], np.dtype[np.int16]]] = []
        rows: list[tuple[int, PooledUtterance]] = []
        for index, path in enumerate(sorted(folder.glob("shard_*.json"))):
            self._files.append(np.memmap(path.with_suffix(".pcm"), dtype=np.int16, mode="r"))
            rows += [(index, PooledUtterance(**row)) for row in json.loads(path.read_text(encoding="utf-8"))]
        self._rows = sorted(rows, key=lambda row: (row[1].num_samples, row[1].text))
        self.texts = [row.text for _, row in self._rows]
        self.durations_s = np.array([row.num_samples for _, row in self._rows]) / SAMPLING_RATE

    def __len__(self) -> int:
        return len(self._rows)

    def waveform(self, index: int) -> Waveform:
        """Return the speech of one utterance, (S,) float32."""
        shard, row = self._rows[index]
        pcm: Pcm = np.asarray(self._files[shard][row.start : row.start + row.num_samples])
        return from_pcm(pcm)


def build_pool(folder: Path, *, num_utterances: int, seed: int, num_processes: int) -> SpeechPool:
    """Make the missing shards, with a progress bar, and open the pool."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [
        index for index in range(-(-num_utterances // _SHARD_SIZE)) if not (folder / f"shard_{index:04d}.json").exists()
    ]
    # espeak-ng has global state, and threads of Ray or torch do not survive a fork: start new processes
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as executor:
        jobs = [executor.submit(write_shard, folder, index, seed) for index in missing]
        for job in track(jobs, description="synthetic speech", disable=not jobs):
            job.result()
    return SpeechPool(folder)


def write_shard(folder: Path, index: int, seed: int) -> None:
    """Synthesize the sentences of one shard and write its two files, the JSON file last."""
    generator = random.Random(f"{seed}-{index}")
    grammar = load_grammar("sentences")
    rows, parts, start = [], [], 0
    for _ in range(_SHARD_SIZE):
        symbol = generator.choices(list(_SYMBOL_WEIGHTS), weights=list(_SYMBOL_WEIGHTS.values()))[0]
        text, voice, waveform = speak_sentence(grammar, generator, symbol=symbol, voices=TRAINING_VOICES)
        parts.append(to_pcm(waveform))
        rows.append(PooledUtterance(text=text, voice=voice.name, start=start, num_samples=len(waveform)))
        start += len(waveform)
    np.concatenate(parts).tofile(folder / f"shard_{index:04d}.pcm")
    text_rows = json.dumps([asdict(row) for row in rows])
    (folder / f"shard_{index:04d}.json").write_text(text_rows, encoding="utf-8")


def speak_sentence(
    grammar: Grammar, generator: random.Random, *, symbol: str, voices: Sequence[str]
) -> tuple[str, Voice, Waveform]:
    """Generate a sentence and synthesize it with random voice, rate, pitch and pauses, without silence around it."""
    text = write_sentence(grammar, generator, symbol=symbol)
    voice = Voice(
        name=generator.choice(voices),
        words_per_minute=generator.randint(130, 220),
        pitch=generator.randint(25, 75),
        pitch_range=generator.randint(20, 80),
        word_gap=generator.choice((0, 0, 0, 1, 3, 8)) if symbol != "digit_string" else generator.choice((0, 5, 15, 25)),
    )
    return text, voice, trim_silence(speak(text, voice))


def trim_silence(waveform: Waveform) -> Waveform:
    """Remove silence from both ends; a waveform that is all silence is returned unchanged."""
    loud = np.flatnonzero(np.abs(waveform) > _SILENCE_LEVEL)
    return waveform[loud[0] : loud[-1] + 1] if loud.size else waveform
