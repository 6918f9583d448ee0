"""Which padding suits stock weights?  ``python -m benchmarks.padding --base FOLDER --manifest FILE --output FILE``.

A window shorter than 30 s can be padded in two ways: the *sound* with zeros, as Hugging Face's feature extractor does,
or the *log-mel spectrogram* with zeros after the last frame of sound, as openai-whisper, faster-whisper and we do. Both
are read by the same weights in PyTorch, in float32, with greedy decoding and temperature fallback. Error rates are by
language, with the interval of the difference over the same utterances.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from rich.progress import track

from benchmarks.common import Row, describe_machine, print_table, write_result
from sottovoce.audio.decode import read_audio
from sottovoce.audio.features import log_mel_batch
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.manifest import read_manifest
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import HOP_LENGTH, DecodeOptions, Utterance
from sottovoce.text.normalize import Normalizer, read_spelling
from sottovoce.text.paired import compare_wer
from sottovoce.text.score import score_texts

QUESTION = "Which padding of short windows suits stock weights: zeros after the sound, or after its log-mel frames?"
_NUM_FRAMES = 3_000


class PaddingBenchmark(Config):
    """Score both paddings."""

    output: Path
    """JSON file that receives the result."""
    base: Path
    """The stock checkpoint."""
    manifest: Path
    """Speech with transcripts, of any languages."""
    batch_size: int = Field(default=8, ge=1)


def main(config: PaddingBenchmark) -> None:
    """Transcribe every utterance twice and write the error rates."""
    setup_logging()
    machine = describe_machine()
    checkpoint = load_checkpoint(config.base)
    recognizer = TorchRecognizer(checkpoint)
    utterances = sorted(read_manifest(config.manifest), key=lambda one: one.duration_s)
    sound: list[str] = []
    frames: list[str] = []
    for first in track(range(0, len(utterances), config.batch_size), description="transcribing"):
        batch = utterances[first : first + config.batch_size]
        waveforms = [read_audio(one.audio, start_s=one.start_s, duration_s=one.duration_s) for one in batch]
        padded = [np.pad(waveform, (0, _NUM_FRAMES * HOP_LENGTH - len(waveform))) for waveform in waveforms]
        for texts, read in ((sound, padded), (frames, waveforms)):
            features = log_mel_batch(read, num_mel_bins=checkpoint.num_mel_bins, num_frames=_NUM_FRAMES)
            texts += _recognize(recognizer, torch.from_numpy(features), batch)
    spelling = read_spelling(config.base)
    languages = sorted({one.language for one in utterances})
    rows = [_compare(utterances, sound, frames, language, spelling) for language in (*languages, None)]
    write_result(config.output, QUESTION, rows, machine=machine)
    print_table(QUESTION, rows)


def _recognize(recognizer: TorchRecognizer, features: torch.Tensor, batch: Sequence[Utterance]) -> list[str]:
    options = [DecodeOptions(language=one.language, temperatures=FALLBACK_TEMPERATURES) for one in batch]
    return [result.text for result in recognizer.recognize_encoded(recognizer.encode(features), options)]


def _compare(
    utterances: Sequence[Utterance],
    sound: Sequence[str],
    frames: Sequence[str],
    language: str | None,
    spelling: dict[str, str],
) -> Row:
    """Return one language's error rates; all utterances by the ``basic`` normalizer if it is None."""
    chosen = [index for index, one in enumerate(utterances) if language in (None, one.language)]
    normalizer: Normalizer = "english" if language == "en" else "basic"
    references = [utterances[index].text for index in chosen]
    of_sound, of_frames = (
        score_texts(references, [texts[index] for index in chosen], normalizer=normalizer, spelling=spelling)
        for texts in (sound, frames)
    )
    difference = compare_wer(
        [utterances[index] for index in chosen],
        [[sound[index] for index in chosen]],
        [[frames[index] for index in chosen]],
        normalizer=normalizer,
        spelling=spelling,
    )
    return {
        "language": language or "all",
        "utterances": len(chosen),
        "words": of_sound.wer.num_reference,
        "wer_sound": of_sound.wer.rate,
        "wer_frames": of_frames.wer.rate,
        "cer_sound": of_sound.cer.rate,
        "cer_frames": of_frames.cer.rate,
        "difference": difference.difference,
        "low": difference.low,
        "high": difference.high,
        "different_texts": sum(sound[index] != frames[index] for index in chosen),
    }


if __name__ == "__main__":
    main(load_config(PaddingBenchmark))
