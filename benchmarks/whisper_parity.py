"""Does decoding write what openai-whisper writes?  ``python -m benchmarks.whisper_parity --output FILE``.

Both decode the same encoded sound with the same weights, greedily and with times: the embedded micro, and a random
model as narrow as Whispers can be, whose texts are noise and fill the decoder. Utterances, padded to 30 s: synthetic
sentences in voices no model was trained on, and recordings of people (``--recordings``).

Both suppress the tokens that stock Whispers suppress, and the names of languages, which openai-whisper alone would not.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import WhisperConfig

from benchmarks.common import Row, describe_machine, print_table, write_result
from benchmarks.openai_whisper import as_openai_whisper
from sottovoce.audio.decode import read_audio
from sottovoce.audio.features import log_mel_batch
from sottovoce.config import Config, load_config
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.context import TrimmedWhisper, set_audio_context
from sottovoce.model.source import MICRO
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import FRAMES_PER_SECOND, MAX_CONTEXT_S, DecodeOptions, Waveform, WindowResult

QUESTION = "On how many utterances are the greedy tokens with times those of openai-whisper on the same weights?"
_SEED = 2_026
_MAX_S = 9.5  # of an utterance: within micro's longest context
_BATCH_SIZE = 10


class WhisperParityBenchmark(Config):
    """Count utterances with equal tokens."""

    output: Path
    """File that receives the result as JSON."""
    recordings: Path | None = None
    """Folder with recordings of people, .wav or .flac; synthetic speech alone when None."""
    num_utterances: int = 200
    """Half of them recordings, where there are any."""


def main(settings: WhisperParityBenchmark) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    waveforms = _read_speech(settings.recordings, settings.num_utterances)
    models = {"micro": load_checkpoint(MICRO), "random": random_checkpoint()}
    rows = [_compare(name, checkpoint, waveforms) for name, checkpoint in models.items()]
    machine = describe_machine(("numpy", "torch", "transformers", "openai-whisper"))
    write_result(settings.output, QUESTION, rows, machine=machine)
    print_table("equal tokens, greedy, with times", rows)


def random_checkpoint() -> Checkpoint:
    """Make a Whisper of width 32 with one layer on either side, wide enough at the start for texts that differ."""
    micro = load_checkpoint(MICRO)
    config = WhisperConfig.from_dict(micro.model.config.to_dict())
    config.update(
        {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "init_std": 0.3,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = TrimmedWhisper(config)
    model.generation_config = micro.model.generation_config
    nn.Module.eval(model)
    return Checkpoint(model=model, tokenizer=micro.tokenizer, source="random")


def suppress_like_openai(checkpoint: Checkpoint) -> list[int]:
    """Set stock Whisper's lists and contexts, and return the tokens that openai-whisper must also suppress."""
    from whisper.tokenizer import get_tokenizer  # here: an optional package, in the extras dev and benchmarks

    tokenizer = get_tokenizer(multilingual=True, num_languages=len(checkpoint.languages))
    set_audio_context(checkpoint.model.config, AudioContext())
    generation: Any = checkpoint.model.generation_config
    generation.suppress_tokens = list(tokenizer.non_speech_tokens)
    generation.begin_suppress_tokens = [*tokenizer.encode(" "), tokenizer.eot]
    return [-1, *tokenizer.all_language_tokens]


def _read_speech(recordings: Path | None, num_utterances: int) -> list[Waveform]:
    paths = (
        [] if recordings is None else sorted(path for kind in ("wav", "flac") for path in recordings.rglob(f"*.{kind}"))
    )
    step = max(1, 2 * len(paths) // num_utterances)
    real = [read_audio(path) for path in paths[::step][: num_utterances // 2]]
    spoken = speak_timed(num_utterances - len(real), voices=UNSEEN_VOICES, max_s=_MAX_S, seed=_SEED)
    return [*real, *(one.waveform for one in spoken)]


def _compare(name: str, checkpoint: Checkpoint, waveforms: Sequence[Waveform]) -> Row:
    """Decode all with both, and count."""
    from whisper.decoding import DecodingOptions  # here: an optional package, in the extras dev and benchmarks

    suppressed = suppress_like_openai(checkpoint)
    ours, theirs = TorchRecognizer(checkpoint), as_openai_whisper(checkpoint)
    options = DecodingOptions(language="en", fp16=False, suppress_tokens=suppressed)
    results: list[WindowResult] = []
    expected: list[Any] = []
    ours_s = theirs_s = 0.0
    for first in range(0, len(waveforms), _BATCH_SIZE):
        batch = waveforms[first : first + _BATCH_SIZE]
        num_frames = round(MAX_CONTEXT_S * FRAMES_PER_SECOND)
        features = log_mel_batch(batch, num_mel_bins=checkpoint.num_mel_bins, num_frames=num_frames)
        encoded = ours.encode(torch.from_numpy(features))
        started = perf_counter()
        results += ours.recognize_encoded(encoded, [DecodeOptions(timestamps=True)] * len(batch))
        ours_s += perf_counter() - started
        started = perf_counter()
        expected += theirs.decode(encoded, options)
        theirs_s += perf_counter() - started
    return {"model": name} | _summary(results, expected) | {"ours_s": ours_s, "openai_whisper_s": theirs_s}


def _summary(results: Sequence[WindowResult], expected: Sequence[Any]) -> dict[str, object]:
    pairs = list(zip(results, expected, strict=True))
    return {
        "utterances": len(pairs),
        "equal_tokens": sum(list(ours.token_ids) == theirs.tokens for ours, theirs in pairs),
        "tokens": sum(len(theirs.tokens) for _, theirs in pairs),
        "distinct_texts": len({theirs.text for _, theirs in pairs}),
        "largest_difference": {
            "avg_logprob": float(np.max([abs(ours.avg_logprob - theirs.avg_logprob) for ours, theirs in pairs])),
            "no_speech_prob": float(
                np.max([abs(ours.no_speech_prob - theirs.no_speech_prob) for ours, theirs in pairs])
            ),
        },
    }


if __name__ == "__main__":
    main(load_config(WhisperParityBenchmark))
