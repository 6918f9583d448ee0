"""What are trimmed contexts worth for stock weights?  ``python -m benchmarks.adapted_context --adapted FOLDER ...``.

Stock whisper-base and the same weights after ``jobs.adapt_context``, on real English sentences that neither the
adaptation nor its choices have seen, in our engines and beside two peers with the same weights: faster-whisper's
batched pipeline, and CTranslate2 called directly (our own engine for it, padded to 30 s). Error rates come with
bootstrap intervals; speed is measured in turns, in one process, with as many threads.

What is fair: all are int8, decode greedily without times in batches of the same size, and fall back to higher
temperatures as Whisper does, except for faster-whisper's batched pipeline, which has no fallback. The peers pad to
30 s, as they always do. They read the stock weights, and the adapted ones too, which shows what adaptation costs
programs that pad. It needs a machine that does nothing else.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pydantic import Field

from benchmarks.common import PACKAGES, Row, Timing, describe_machine, print_table, time_interleaved, write_result
from benchmarks.faster_whisper_peer import FasterWhisper
from sottovoce.audio.decode import read_audio
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.manifest import read_manifest
from sottovoce.export.exporter import TABLE_FILE, ExportConfig, export_checkpoint
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.recognize.scoring import Computing, score_folder
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Utterance, Waveform
from sottovoce.text.normalize import read_spelling
from sottovoce.text.score import score_texts

QUESTION = "What are trimmed contexts worth for stock whisper-base, beside faster-whisper and CTranslate2?"
_VERSIONED = (*PACKAGES, "onnxruntime", "faster-whisper", "ctranslate2")
_VARIANTS = ("int8", "ct2-int8")
_NO_GATE = 1e9  # what int8 costs is reported here, not refused
_SHORTEST_S, _LONGEST_S = 2.0, 15.0

Recognize: TypeAlias = Callable[[Sequence[Waveform]], list[str]]


class AdaptedContextBenchmark(Config):
    """Time and score stock and adapted weights beside peers."""

    output: Path
    """JSON file that receives the result."""
    base: Path
    """The stock checkpoint."""
    adapted: Path
    """The checkpoint that ``jobs.adapt_context`` made of it."""
    manifest: Path
    """Speech; the English utterances of 2 to 15 s in its test split are recognized."""
    work: Path = Path("runs/adapted_context")
    """Folder that keeps the exports."""
    num_utterances: int = Field(default=40, ge=1)
    batch_size: int = Field(default=8, ge=1)
    num_threads: int = Field(default=1, ge=1)
    repetitions: int = Field(default=5, ge=1)


def main(config: AdaptedContextBenchmark) -> None:
    """Export both, score all systems, time them, and write the result."""
    setup_logging()
    utterances = [
        one
        for one in read_manifest(config.manifest)
        if one.split == "test" and one.language == "en" and _SHORTEST_S <= one.duration_s <= _LONGEST_S
    ][: config.num_utterances]
    systems = _load_systems(config, utterances)
    waveforms = [read_audio(one.audio, start_s=one.start_s, duration_s=one.duration_s) for one in utterances]
    order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
    by_length = [waveforms[index] for index in order]
    machine = describe_machine(_VERSIONED) | {"load_1_min": f"{os.getloadavg()[0]:.2f}"}
    timings = time_interleaved(
        {name: partial(recognize, by_length) for name, recognize in systems.items()}, repetitions=config.repetitions
    )
    spelling = read_spelling(config.base)
    rows: list[Row] = []
    for name, recognize in systems.items():
        score = score_texts(
            [utterances[index].text for index in order], recognize(by_length), normalizer="english", spelling=spelling
        )
        rows.append(
            {
                "system": name,
                "wer": score.wer.rate,
                "wer_low": score.wer.low,
                "wer_high": score.wer.high,
                "words": score.wer.num_reference,
                "rtfx": sum(map(len, waveforms)) / SAMPLING_RATE / timings[name].median_s,
                "median_s": timings[name].median_s,
                "iqr_s": timings[name].iqr_s,
            }
        )
    rows += _compare(timings)
    rows.append(
        {
            "utterances": len(waveforms),
            "audio_s": sum(map(len, waveforms)) / SAMPLING_RATE,
            "batch_size": config.batch_size,
            "threads": config.num_threads,
            "repetitions": config.repetitions,
        }
    )
    write_result(config.output, QUESTION, rows, machine=machine)
    print_table(QUESTION, rows)


def _load_systems(config: AdaptedContextBenchmark, utterances: Sequence[Utterance]) -> dict[str, Recognize]:
    """Export both checkpoints unless that is done, and load every system."""
    systems: dict[str, Recognize] = {}
    for model, checkpoint in (("stock", config.base), ("adapted", config.adapted)):
        export = config.work / model
        if not (export / TABLE_FILE).is_file():
            score = partial(
                score_folder,
                utterances=utterances[: config.batch_size],
                normalizer="english",
                computing=Computing(device="cpu", num_threads=config.num_threads),
            )
            export_checkpoint(ExportConfig(variants=_VARIANTS, max_wer_rise=_NO_GATE), checkpoint, export, score=score)
        for variant in _VARIANTS:
            systems[f"{model}, ours, {variant}"] = _ours(export, variant, config)
        peer = FasterWhisper(export / "ct2-int8", compute_type="int8", num_threads=config.num_threads)
        systems[f"{model}, faster-whisper batched"] = partial(peer.recognize, batch_size=config.batch_size, beam_size=1)
    return systems


def _ours(export: Path, variant: str, config: AdaptedContextBenchmark) -> Recognize:
    recognizer = load_recognizer(export, variant=variant, num_threads=config.num_threads, device="cpu")
    options = DecodeOptions(language="en", temperatures=FALLBACK_TEMPERATURES)

    def recognize(waveforms: Sequence[Waveform]) -> list[str]:
        texts: list[str] = []
        for first in range(0, len(waveforms), config.batch_size):
            batch = waveforms[first : first + config.batch_size]
            texts += [result.text for result in recognizer.recognize(batch, [options] * len(batch))]
        return texts

    return recognize


def _compare(timings: Mapping[str, Timing]) -> list[Row]:
    """Return how many times as long the fastest peer takes with stock weights; the range is that of the quartiles."""
    peer = min((timings[name] for name in ("stock, ours, ct2-int8", "stock, faster-whisper batched")), key=_median)
    return [
        {
            "ratio": f"fastest peer, stock, over {name}",
            "times": peer.median_s / timings[name].median_s,
            "times_low": peer.q1_s / timings[name].q3_s,
            "times_high": peer.q3_s / timings[name].q1_s,
        }
        for name in ("stock, ours, int8", "adapted, ours, int8", "adapted, ours, ct2-int8")
    ]


def _median(timing: Timing) -> float:
    return timing.median_s


if __name__ == "__main__":
    main(load_config(AdaptedContextBenchmark))
