"""How much sooner does an assistant let a large model write?  ``python -m benchmarks.speculative --output FILE``.

No large Whisper with a fitting assistant is at hand without a network, and random ones agree on nothing. So the target
is micro itself at a multiple of its cost: its decoder gets layers that add nothing to what they read, as many and with
as many weights each as a published shape has. Its assistant is micro, which guesses all that the target writes, and
micro with noise on its decoder's weights, which guesses less well. The encoder is the same in both and is run once, as
with a distilled model and its teacher; it is micro's small one, so the times are those of writing.

Each row is one pair at one batch size: seconds with and without the assistant, in turns in one run, on one thread, and
their ratio; how many tokens the target read and wrote at a time; and whether all tokens are the same.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from transformers.models.whisper.modeling_whisper import WhisperDecoderLayer

from benchmarks.common import describe_machine, print_table, time_interleaved, write_result
from sottovoce.config import Config, load_config
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, Waveform, WindowResult

Shape: TypeAlias = Literal["base", "small", "medium", "large"]
_LAYERS_AND_WIDTH: dict[Shape, tuple[int, int]] = {
    "base": (6, 512),
    "small": (12, 768),
    "medium": (24, 1024),
    "large": (32, 1280),
}

QUESTION = "How many times sooner does the torch engine write the same tokens with an assistant?"
_SEED = 2_027  # no other speech of the project is made with it
_MAX_S = 9.5  # of a window: within micro's longest context


class SpeculativeBenchmark(Config):
    """Time the torch engine with and without an assistant."""

    output: Path
    """File that receives the result as JSON."""
    shapes: tuple[Shape, ...] = ("base", "small", "medium")
    """Whose decoder the target's costs as much as."""
    noises: tuple[float, ...] = (0.0, 0.8, 1.2)
    """Of the assistant's decoder weights, in multiples of their deviation."""
    batch_sizes: tuple[int, ...] = (1, 4)
    """Windows decoded together."""
    num_windows: int = 4
    """Windows of speech, of up to 9.5 s."""
    repetitions: int = 5
    """Of each timing; the median counts."""


def main(settings: SpeculativeBenchmark) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    micro = load_checkpoint("micro")
    windows = [
        one.waveform for one in speak_timed(settings.num_windows, voices=UNSEEN_VOICES, max_s=_MAX_S, seed=_SEED)
    ]
    rows = [
        {"target": shape, "noise": noise, "batch_size": batch_size}
        | _measure(target, shake(micro, noise), windows, batch_size=batch_size, repetitions=settings.repetitions)
        for shape in settings.shapes
        for target in (enlarge(micro, shape),)
        for noise in settings.noises
        for batch_size in settings.batch_sizes
    ]
    write_result(settings.output, QUESTION, rows, machine=describe_machine())
    print_table("seconds with and without an assistant", rows)


def enlarge(checkpoint: Checkpoint, shape: Shape) -> Checkpoint:
    """Return a copy with a decoder as large as a published one that computes the same: its new layers add zero."""
    num_layers, width = _LAYERS_AND_WIDTH[shape]
    model = copy.deepcopy(checkpoint.model)
    layers, own_width = model.model.decoder.layers, int(model.config.d_model)
    per_layer = 16 * width**2  # four matrices in each attention, and two of four times the width
    model.config.decoder_ffn_dim = (per_layer - 8 * own_width**2) // (2 * own_width)
    for place in range(len(layers), num_layers):
        layer = WhisperDecoderLayer(model.config, place)
        for last in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
        layers.append(layer.eval())
    model.config.decoder_layers = num_layers
    return replace(checkpoint, model=model, source=f"{checkpoint.source} as large as {shape}")


def shake(checkpoint: Checkpoint, noise: float) -> Checkpoint:
    """Return a copy with noise on its decoder's layers, in multiples of each weight's deviation."""
    model = copy.deepcopy(checkpoint.model)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for weight in model.model.decoder.layers.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * noise * weight.std(correction=0))
    return replace(checkpoint, model=model, source=f"{checkpoint.source} with noise {noise:g}")


def _measure(
    target: Checkpoint, assistant: Checkpoint, windows: Sequence[Waveform], *, batch_size: int, repetitions: int
) -> dict[str, object]:
    """Time one pair at one batch size."""
    alone = TorchRecognizer(target, max_batch_size=batch_size)
    helped = TorchRecognizer(target, max_batch_size=batch_size, assistant=assistant)
    (expected, num_steps), (found, num_steps_helped) = (_count_steps(one, target, windows) for one in (alone, helped))
    timings = time_interleaved(
        {"alone": lambda: _write(alone, windows), "helped": lambda: _write(helped, windows)}, repetitions=repetitions
    )
    num_tokens = sum(len(result.token_ids) for result in expected)
    return {
        "speed_up": timings["alone"].median_s / timings["helped"].median_s,
        "alone_s": timings["alone"].median_s,
        "alone_iqr_s": timings["alone"].iqr_s,
        "with_assistant_s": timings["helped"].median_s,
        "with_assistant_iqr_s": timings["helped"].iqr_s,
        "tokens": num_tokens,
        "steps_alone": num_steps,
        "steps_with_assistant": num_steps_helped,
        "all_equal": [one.token_ids for one in found] == [one.token_ids for one in expected],
    }


def _write(recognizer: Recognizer, windows: Sequence[Waveform]) -> list[WindowResult]:
    return recognizer.recognize(windows, [DecodeOptions()] * len(windows))


def _count_steps(
    recognizer: Recognizer, target: Checkpoint, windows: Sequence[Waveform]
) -> tuple[list[WindowResult], int]:
    """Count how often the target's decoder runs."""
    calls: list[object] = []
    handle = target.model.model.decoder.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        return _write(recognizer, windows), len(calls)
    finally:
        handle.remove()


if __name__ == "__main__":
    main(load_config(SpeculativeBenchmark))
