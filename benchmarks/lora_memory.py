"""How much memory does training an adapter take, beside training all weights?

``python -m benchmarks.lora_memory --output FILE``. Whisper of a published shape with random weights, the same batch of
random spectrograms and labels, the same precision; each run in a process of its own, in alternating order, with the
model, objective and optimizer of training. The result is the peak over the steps above the process with its libraries
loaded: on a CPU the peak of the resident set (from Linux), on a GPU the maximum that torch's allocator held.

On a CPU freed tensors of a MiB or more go back to the system at once in these processes. Left to itself, glibc keeps
holes between them, for either method, and the resident set tells more of its history than of what training needs
(whisper-base, 4 x 5 s: 1 300 against 1 810 MiB, where the tensors themselves come to about 700 against 1 500).
"""

import gc
import multiprocessing
import os
import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import psutil
import torch
from pydantic import Field
from torch import nn
from transformers import WhisperConfig

from benchmarks.common import Row, describe_machine, print_table, write_result
from sottovoce.config import Config, load_config
from sottovoce.model.adapter import AdapterBase, LoraSettings, add_adapter
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.frozen_base import halve_frozen_matrices
from sottovoce.schema import FRAMES_PER_SECOND
from sottovoce.train.objective import WhisperObjective, parameter_groups, prepare_whisper

Method: TypeAlias = Literal["full", "lora"]
Shape: TypeAlias = Literal["base", "small", "large-v3"]

_BAR = 0.6
_PACKAGES = ("torch", "transformers", "peft")
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}  # glibc reads it at the start
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class WhisperShape(NamedTuple):
    """What of a published Whisper its size follows from."""

    width: int
    num_layers: int
    num_heads: int
    num_mel_bins: int


_SHAPES: dict[Shape, WhisperShape] = {
    "base": WhisperShape(512, 6, 8, 80),
    "small": WhisperShape(768, 12, 12, 80),
    "large-v3": WhisperShape(1280, 32, 20, 128),
}


class LoraMemoryBenchmark(Config):
    """What is trained, and how often it is measured."""

    shape: Shape = "small"
    batch_size: int = Field(default=8, ge=1)
    context_s: float = Field(default=5.0, gt=0.0, le=30.0)
    """Seconds of audio of each example."""
    num_tokens: int = Field(default=32, ge=2, le=448)
    """Of each example's labels."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    lora: LoraSettings = LoraSettings()
    num_steps: int = Field(default=3, ge=1)
    repetitions: int = Field(default=5, ge=1)
    """Processes of each method; the median is reported."""
    output: Path
    """JSON file that receives the result."""


def measure(config: LoraMemoryBenchmark, method: Method) -> float:
    """Train for some steps and give the peak memory [MiB]; runs in a process of its own."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(max(1, (psutil.cpu_count(logical=False) or 1)))
    torch.manual_seed(0)
    import peft  # noqa: F401 - loaded for both methods before memory is read: a library is no part of what is compared

    gc.collect()
    _forget_peak()
    start = psutil.Process().memory_info().rss
    objective = _build(config, method).to(device)
    optimizer = torch.optim.AdamW(parameter_groups(objective, weight_decay=0.01), lr=1e-5, fused=True)
    scaler = torch.amp.GradScaler(device, enabled=config.precision == "fp16")
    half = _TYPES.get(config.precision)
    shape = _SHAPES[config.shape]
    for _ in range(config.num_steps):
        features = torch.randn(
            config.batch_size, shape.num_mel_bins, round(config.context_s * FRAMES_PER_SECOND), device=device
        )
        tokens = torch.randint(50_000, (config.batch_size, config.num_tokens), device=device)
        with torch.autocast(device, dtype=half) if half else nullcontext():
            loss = objective(features, tokens, tokens)
        scaler.scale(loss.total / loss.num_labels).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _peak_rss() - start
    return float(peak) / 2**20


def compare(config: LoraMemoryBenchmark) -> list[Row]:
    """Measure both methods in turns."""
    found: dict[Method, list[float]] = {"full": [], "lora": []}
    methods: list[Method] = ["full", "lora"]
    for repetition in range(config.repetitions):
        for method in methods[:: 1 if repetition % 2 == 0 else -1]:
            found[method].append(_measure_apart(config, method))
    medians = {method: statistics.median(values) for method, values in found.items()}
    setting = config.model_dump(mode="json", exclude={"output", "repetitions"})
    counts = {method: _count_trained(config, method) for method in methods}
    return [
        {
            "method": method,
            "peak_mib": round(medians[method], 1),
            "lowest_mib": round(min(found[method]), 1),
            "highest_mib": round(max(found[method]), 1),
            "trained_parameters": counts[method],
            "against_full": round(medians[method] / medians["full"], 4),
            "bar": _BAR if method == "lora" else "",
            "repetitions": config.repetitions,
            "setting": setting,
        }
        for method in methods
    ]


def _measure_apart(config: LoraMemoryBenchmark, method: Method) -> float:
    """Measure in a fresh process, so that nothing freed before is counted or reused."""
    os.environ.update(_ALLOCATOR)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (config, method))


def _build(config: LoraMemoryBenchmark, method: Method) -> WhisperObjective:
    whisper = TrimmedWhisper(_whisper_config(config.shape))
    if method == "lora":
        base = AdapterBase("random", revision=None, weights_sha256=None)
        add_adapter(whisper, config.lora, base=base, token_ids=range(1_000), seed=0)
        if config.precision != "fp32":
            halve_frozen_matrices(whisper, _TYPES[config.precision])
    prepare_whisper(whisper, method=method, dropout=0.0, gradient_checkpointing=config.gradient_checkpointing)
    return WhisperObjective(whisper, label_smoothing=0.0)


def _count_trained(config: LoraMemoryBenchmark, method: Method) -> int:
    with torch.device("meta"):
        objective = _build(config, method)
    return sum(weight.numel() for weight in objective.parameters() if weight.requires_grad)


def _whisper_config(name: Shape) -> WhisperConfig:
    shape = _SHAPES[name]
    return WhisperConfig(
        vocab_size=51_866 if name == "large-v3" else 51_865,
        d_model=shape.width,
        num_mel_bins=shape.num_mel_bins,
        encoder_layers=shape.num_layers,
        decoder_layers=shape.num_layers,
        encoder_attention_heads=shape.num_heads,
        decoder_attention_heads=shape.num_heads,
        encoder_ffn_dim=4 * shape.width,
        decoder_ffn_dim=4 * shape.width,
    )


def _forget_peak() -> None:
    """Let Linux count the peak of the resident set from now on; see proc(5), clear_refs."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_rss() -> int:
    """Read the peak of the resident set [bytes] since it was forgotten."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def main(config: LoraMemoryBenchmark) -> None:
    """Run the benchmark."""
    machine = describe_machine(_PACKAGES)
    rows = compare(config)
    question = "How much memory does training a LoRA adapter take at its peak, beside training all weights?"
    write_result(config.output, question, rows, machine=machine)
    print_table("peak memory above the process's own, MiB", [{**row, "setting": config.shape} for row in rows])


if __name__ == "__main__":
    main(load_config(LoraMemoryBenchmark))
