"""Does slow speech keep its words and their times?  ``python -m benchmarks.slow_speech --output FILE``.

Real people's speech (``--speech``, ``--digits``) in which pauses of 1 to 8 s are inserted: between digits, between
sentences, and where a speaker paused within a sentence. A pause has the background of the recording around it: noise as
loud as its quietest frames. So it is known when each stretch of speech begins, and where nobody speaks. Sentences keep
their levels; some of ``tested`` are 40 dB softer than those beside them.

Our CTranslate2 engine transcribes each recording by both algorithms, with word times. faster-whisper does so with the
same files, openai-whisper with the same weights in float32. All decode greedily, with the same fallback temperatures.
``start_*`` are distances from where a stretch of speech begins to the nearest start of a word. ``over_pauses`` counts
words that last through half a second of an inserted pause, or more. ``tuned`` is the speech that our settings were
chosen on: LJ Speech and the digits' train split. ``ordinary`` are sentences as they were recorded.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import jiwer
import numpy as np
import torch

from benchmarks.common import Row, describe_machine, print_table, write_result
from benchmarks.openai_whisper import as_openai_whisper
from benchmarks.real_scores import spell_digits
from benchmarks.slow_recordings import SlowSpeech, build_slow_speech
from sottovoce.config import Config, load_config
from sottovoce.export.ctranslate2 import write_ctranslate2
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES, LongFormOptions
from sottovoce.schema import Waveform, WordTime
from sottovoce.text.normalize import build_normalizer, read_spelling

QUESTION = "Are words kept, and timed right, in slow speech with pauses of 1 to 8 s?"
_OVER_PAUSE_S = 0.5

Variant: TypeAlias = Literal["ct2-int8", "ct2-float32"]
System: TypeAlias = Literal["chunked", "sequential", "openai-whisper", "faster-whisper", "faster-whisper, vad"]
Listen: TypeAlias = Callable[[Waveform], tuple[str, Sequence[WordTime]]]
"""Returns the text of a recording and its words."""


class SlowSpeechBenchmark(Config):
    """Transcribe slow speech with our algorithms and with peers."""

    output: Path
    """File that receives the result as JSON. What it holds of systems that do not transcribe now is kept."""
    model: Path = Path("../shared/models/whisper-base")
    """Checkpoint folder of a stock Whisper."""
    variant: Variant = "ct2-int8"
    """CTranslate2's precision, for our engine and faster-whisper."""
    speech: Path = Path("../shared/data/real")
    """Folder with recordings of people and ``manifest.jsonl``; the English of it is used."""
    digits: Path = Path("../shared/data/fsdd")
    """An audio folder with one spoken digit in each recording."""
    systems: tuple[System, ...] = (
        "chunked",
        "sequential",
        "openai-whisper",
        "faster-whisper",
        "faster-whisper, vad",
    )
    """Which ones transcribe."""
    groups: tuple[Literal["tuned", "tested", "ordinary"], ...] = ("tuned", "tested", "ordinary")
    """Recordings that are transcribed."""
    show_texts: bool = False
    """Print what each system makes of each recording."""


@dataclass
class _Count:
    """Errors of one system on recordings of one kind."""

    num_words: int = 0
    errors: int = 0
    deletions: int = 0
    insertions: int = 0
    over_pauses: int = 0
    starts_s: tuple[float, ...] = ()

    def row(self) -> dict[str, object]:
        starts = np.array(self.starts_s)
        return {
            "num_words": self.num_words,
            "errors": self.errors,
            "deletions": self.deletions,
            "insertions": self.insertions,
            "wer": self.errors / self.num_words,
            "num_starts": len(starts),
            "start_median_s": float(np.median(starts)),
            "start_p95_s": float(np.percentile(starts, 95)),
            "starts_above_0.3_s": int((starts > 0.3).sum()),
            "over_pauses": self.over_pauses,
        }


def main(settings: SlowSpeechBenchmark) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    spoken = [one for one in build_slow_speech(settings.speech, settings.digits) if one.group in settings.groups]
    spelling = read_spelling(settings.model)
    kept = _read_others(settings)
    counts: dict[tuple[str, str, str], _Count] = {}
    machine = describe_machine(("numpy", "torch", "transformers", "openai-whisper", "faster-whisper", "ctranslate2"))
    with TemporaryDirectory() as scratch:
        for system, listen in _load(settings, Path(scratch)):
            for one in spoken:
                text, words = listen(one.waveform)
                if settings.show_texts:
                    print(f"{system}, {one.kind}\n  {one.text}\n  {_show(words)}", flush=True)
                count = counts.setdefault((one.group, one.kind, system), _Count())
                _add(count, one, text, words, spelling=spelling)
            rows = kept + [
                {"group": group, "kind": kind, "system": system} | count.row()
                for (group, kind, system), count in sorted(counts.items())
            ]
            write_result(settings.output, QUESTION, rows, machine=machine)
            print_table("so far", rows)


def _read_others(settings: SlowSpeechBenchmark) -> list[Row]:
    """Read the rows of systems that do not transcribe now."""
    if not settings.output.is_file():
        return []
    rows: list[Row] = json.loads(settings.output.read_text(encoding="utf-8"))["results"]
    return [row for row in rows if row["system"] not in settings.systems]


def _load(settings: SlowSpeechBenchmark, scratch: Path) -> Iterator[tuple[System, Listen]]:
    """Load each system in turn."""
    checkpoint = load_checkpoint(settings.model)
    folder = scratch / settings.variant
    save_checkpoint(checkpoint, folder)
    write_ctranslate2(checkpoint, folder, variant=settings.variant, versions={})
    for system in settings.systems:
        if system in ("chunked", "sequential"):
            yield system, _load_ours(folder, settings.variant, system)
        elif system == "openai-whisper":
            yield system, _load_openai_whisper(checkpoint)
        else:
            yield system, _load_faster_whisper(folder, settings.variant, finds_speech=system == "faster-whisper, vad")


def _load_ours(folder: Path, variant: Variant, algorithm: Literal["chunked", "sequential"]) -> Listen:
    recognizer = load_recognizer(folder, variant=variant)

    def listen(waveform: Waveform) -> tuple[str, Sequence[WordTime]]:
        transcript = recognizer.transcribe(
            waveform, language="en", word_timestamps=True, long_form=LongFormOptions(algorithm=algorithm)
        )
        return transcript.text, [word for segment in transcript.segments for word in segment.words]

    return listen


def _load_openai_whisper(checkpoint: Checkpoint) -> Listen:
    from whisper.transcribe import transcribe  # here: an optional package, in the extras dev and benchmarks

    model = as_openai_whisper(checkpoint)
    generation: Any = checkpoint.model.generation_config
    heads = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    for layer, head in generation.alignment_heads:
        heads[layer, head] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)

    def listen(waveform: Waveform) -> tuple[str, Sequence[WordTime]]:
        result = transcribe(
            model, waveform, language="en", word_timestamps=True, temperature=FALLBACK_TEMPERATURES, fp16=False
        )
        words = [
            WordTime(word["word"].strip(), float(word["start"]), float(word["end"]), float(word["probability"]))
            for segment in result["segments"]
            for word in segment["words"]
        ]
        return result["text"], words

    return listen


def _load_faster_whisper(folder: Path, variant: Variant, *, finds_speech: bool) -> Listen:
    from faster_whisper import WhisperModel  # here: an optional package, in the extra benchmarks

    model = WhisperModel(str(folder), device="cpu", compute_type=variant.removeprefix("ct2-"), cpu_threads=1)

    def listen(waveform: Waveform) -> tuple[str, Sequence[WordTime]]:
        found, _ = model.transcribe(
            waveform,
            language="en",
            beam_size=1,
            best_of=1,
            temperature=list(FALLBACK_TEMPERATURES),
            word_timestamps=True,
            vad_filter=finds_speech,
        )
        segments = list(found)
        words = [
            WordTime(word.word.strip(), float(word.start), float(word.end), float(word.probability))
            for segment in segments
            for word in segment.words or ()
        ]
        return " ".join(segment.text.strip() for segment in segments), words

    return listen


def _add(
    count: _Count, spoken: SlowSpeech, text: str, words: Sequence[WordTime], *, spelling: Mapping[str, str]
) -> None:
    """Count one recording's errors."""
    if spoken.kind == "digits":
        rules = build_normalizer("basic")
        reference, hypothesis = rules(spell_digits(spoken.text)), rules(spell_digits(text))
    else:
        rules = build_normalizer("english", spelling)
        reference, hypothesis = rules(spoken.text), rules(text)
    output = jiwer.process_words(reference, hypothesis)
    count.num_words += len(reference.split())
    count.errors += output.substitutions + output.deletions + output.insertions
    count.deletions += output.deletions
    count.insertions += output.insertions
    starts = np.array([word.start_s for word in words] or [0.0])
    count.starts_s += tuple(float(np.abs(starts - begins_s).min()) for begins_s, _ in spoken.stretches)
    count.over_pauses += sum(_overlap_s(word, spoken.pauses) >= _OVER_PAUSE_S for word in words)


def _overlap_s(word: WordTime, pauses: Sequence[tuple[float, float]]) -> float:
    """Return the most that a word shares with one pause."""
    return max((min(word.end_s, end_s) - max(word.start_s, start_s) for start_s, end_s in pauses), default=0.0)


def _show(words: Sequence[WordTime]) -> str:
    return " ".join(f"{word.text}[{word.start_s:.2f}-{word.end_s:.2f}]" for word in words)


if __name__ == "__main__":
    main(load_config(SlowSpeechBenchmark))
