"""How right are word times?  ``python -m benchmarks.word_times --output FILE``.

Speech with known times: synthetic sentences in voices no model was trained on, whose word times espeak-ng gives, and
single words recorded by people, joined with gaps (``--digits``), where a word's time is that of its sound. Each model
is read at its own contexts and padded to 30 s; with the heads its generation config names and with all heads of the
decoder's upper half, which readers take where none are named. ``known`` text is aligned as it was said; ``recognized``
is what each engine gives by itself, on the windows whose words it got right, with their share; ``beside torch`` is how
far an exported variant's times are from the torch engine's, where both wrote the same tokens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import soundfile

from benchmarks.common import Row, describe_machine, print_table, write_result
from sottovoce.config import Config, load_config
from sottovoce.data.corpora.read import read_corpus
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.export.onnx import export_onnx
from sottovoce.export.quantize import quantize_int8
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.model.context import set_audio_context
from sottovoce.model.variants import ServedVariant, export_formats
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, Utterance, WindowResult
from sottovoce.words.alignment_heads import measure_heads
from sottovoce.words.cross_attention import alignment_heads
from sottovoce.words.timed_speech import TimedSpeech, join_utterances, word_errors

Engine: TypeAlias = ServedVariant

QUESTION = "How far are the starts and ends of words from where they are known to be?"
_SEED = 2_026  # no other speech of the project is made with it
_MAX_S = 9.5  # of a window: within micro's longest context


class WordTimesBenchmark(Config):
    """Measure word times on speech whose times are known."""

    output: Path
    """File that receives the result as JSON."""
    models: tuple[str, ...] = ("micro",)
    """Checkpoint folders, Hub ids or micro; a fine-tuned model beside its base, for example."""
    engines: tuple[Engine, ...] = ("torch", *export_formats())
    """Which ones recognize; the variants of each model are exported for it."""
    digits: Path | None = None
    """An audio folder with one spoken word in each recording and a test split; left out when None."""
    num_windows: int = 100
    """Windows of each kind of speech."""


def main(settings: WordTimesBenchmark) -> None:
    """Run the benchmark."""
    speech = {"synthetic sentences": speak_timed(settings.num_windows, voices=UNSEEN_VOICES, max_s=_MAX_S, seed=_SEED)}
    if settings.digits is not None:
        speech["recorded digits"] = _join_digits(settings.digits, settings.num_windows)
    rows = [row for model in settings.models for row in _measure_model(model, settings.engines, speech)]
    write_result(settings.output, QUESTION, rows, machine=describe_machine())
    print_table("errors of word starts and ends, in seconds", rows)


def _measure_model(model: str, engines: Sequence[Engine], speech: dict[str, list[TimedSpeech]]) -> Iterator[Row]:
    checkpoint = load_checkpoint(model)
    own = checkpoint.context
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _export(checkpoint, folder, engines)
        for context in (own,) if own == AudioContext() else (own, AudioContext()):
            set_audio_context(checkpoint.model.config, context)
            recognizers = _load(checkpoint, folder, engines)
            for kind, windows in speech.items():
                common = {"model": model, "context_s": f"{context.min_s:g} to {context.max_s:g}", "speech": kind}
                for heads, errors in _known_text(checkpoint, windows).items():
                    yield common | {"text": "known", "engine": "torch", "heads": heads} | _summary(errors, share=1.0)
                for row in _recognized(recognizers, windows):
                    yield common | {"heads": "named"} | dict(row)


def _export(checkpoint: Checkpoint, folder: Path, engines: Sequence[Engine]) -> None:
    """Write the variants asked for; no gate judges them here."""
    if set(engines) == {"torch"}:
        return
    for variant in export_formats():
        save_checkpoint(checkpoint, folder / variant)
    export_onnx(checkpoint, folder / "fp32")
    if "int8" in engines:
        quantize_int8(folder / "fp32", folder / "int8")


def _load(checkpoint: Checkpoint, folder: Path, engines: Sequence[Engine]) -> dict[Engine, Recognizer]:
    """Load each engine with the checkpoint's contexts as they are set now."""
    recognizers: dict[Engine, Recognizer] = {}
    for engine in engines:
        if engine == "torch":
            recognizers[engine] = TorchRecognizer(checkpoint)
        else:
            checkpoint.model.config.save_pretrained(folder / engine)
            recognizers[engine] = load_recognizer(folder, variant=engine)
    return recognizers


def _known_text(checkpoint: Checkpoint, windows: Sequence[TimedSpeech]) -> dict[str, list[float]]:
    """Time what was said with the heads named and with the default ones."""
    generation: Any = checkpoint.model.generation_config
    named, generation.alignment_heads = generation.alignment_heads, None
    default = alignment_heads(checkpoint.model)
    generation.alignment_heads = named
    heads = {"named": alignment_heads(checkpoint.model), "upper half": default}
    return {name: measure_heads(checkpoint, windows, chosen) for name, chosen in heads.items()}


def _recognized(recognizers: dict[Engine, Recognizer], windows: Sequence[TimedSpeech]) -> Iterator[Row]:
    """Recognize with each engine: the errors in the windows whose words are right, and how engines differ."""
    options = [DecodeOptions(word_timestamps=True)] * len(windows)
    waveforms = [one.waveform for one in windows]
    results = {engine: recognizer.recognize(waveforms, options) for engine, recognizer in recognizers.items()}
    for engine, found in results.items():
        errors = [word_errors(result.words, one) for result, one in zip(found, windows, strict=True)]
        right = [values for values in errors if values is not None]
        summary = _summary([error for values in right for error in values], share=len(right) / len(windows))
        yield {"text": "recognized", "engine": engine} | summary
    for engine in [name for name in results if name != "torch" and "torch" in results]:
        same = [
            pair
            for pair in zip(results[engine], results["torch"], strict=True)
            if pair[0].token_ids == pair[1].token_ids
        ]
        distances = [distance for pair in same for distance in _distances(*pair)]
        yield {"text": "beside torch", "engine": engine} | _summary(distances, share=len(same) / len(windows))


def _distances(result: WindowResult, other: WindowResult) -> list[float]:
    """Return the differences of starts and ends, word by word."""
    return [
        difference
        for word, same in zip(result.words, other.words, strict=True)
        for difference in (word.start_s - same.start_s, word.end_s - same.end_s)
    ]


def _summary(errors: Sequence[float], *, share: float) -> dict[str, object]:
    """Return medians and the ninth decile of the distances; nothing where there are no errors."""
    if not errors:
        return {"windows": share, "times": 0}
    distances = np.abs(errors)
    return {
        "windows": share,
        "times": len(errors),
        "median_start_s": float(np.median(distances[::2])),
        "median_end_s": float(np.median(distances[1::2])),
        "median_s": float(np.median(distances)),
        "p90_s": float(np.percentile(distances, 90)),
        "largest_s": float(distances.max()),
        "above_0.2_s": float(np.mean(distances > 0.2)),
    }


def _join_digits(folder: Path, num_windows: int) -> list[TimedSpeech]:
    """Join the test recordings of each speaker, four at a time, in an order drawn once."""
    rows = [row for row in read_corpus(folder) if row.split == "test" and row.text]
    order = np.random.default_rng(_SEED).permutation(len(rows))
    by_speaker = sorted((rows[place] for place in order), key=lambda row: str(row.speaker))
    utterances = [
        Utterance(id=row.id, audio=row.audio, duration_s=soundfile.info(row.audio).duration, text=row.text or "")
        for row in by_speaker
    ]
    return join_utterances(utterances, max_s=_MAX_S, max_examples=num_windows, seed=_SEED)


if __name__ == "__main__":
    main(load_config(WordTimesBenchmark))
