"""How fast is a linear layer on this processor by oneDNN, beside torch's own?

``python -m benchmarks.linear --output FILE``. The layers of Whispers of published widths on one thread: the 1 500
rows of a 30 s spectrogram through a layer of attention and both of the feed-forward, a batch's label places through the
output layer, and a few rows, as in decoding. Each with its gradients and without.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmarks.common import Row, describe_machine, print_table, time_interleaved, write_result
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.model.onednn_linear import OneDnnLinear

_LAYERS: tuple[tuple[str, int, int, int], ...] = (  # name, rows, inputs, outputs
    ("tiny, attention", 1_500, 384, 384),
    ("tiny, feed-forward", 1_500, 384, 1_536),
    ("tiny, feed-forward back", 1_500, 1_536, 384),
    ("tiny, output", 100, 384, 51_865),
    ("small, feed-forward", 1_500, 768, 3_072),
    ("large, attention", 1_500, 1_280, 1_280),
    ("tiny, 16 rows", 16, 384, 1_536),
    ("tiny, 4 rows, by torch", 4, 384, 1_536),  # too few for oneDNN
)


class LinearBenchmark(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    repetitions: int = Field(default=9, ge=5)
    batch_size: int = Field(default=4, ge=1)
    """Spectrograms whose rows go through a layer together."""


def main(config: LinearBenchmark) -> None:
    """Run the benchmark."""
    setup_logging()
    torch.set_num_threads(1)
    rows = [measure(*layer, config) for layer in _LAYERS]
    question = "How fast is a linear layer by oneDNN on one thread, beside torch's own?"
    write_result(config.output, question, rows, machine=describe_machine(("torch",)))
    print_table("Linear layers on one thread, float32", rows)


def measure(name: str, num_rows: int, num_inputs: int, num_outputs: int, config: LinearBenchmark) -> Row:
    """Time both in turns on one layer."""
    torch.manual_seed(0)
    num_rows *= config.batch_size if num_rows >= 100 else 1
    layers = {"ours": OneDnnLinear(num_inputs, num_outputs), "torch": nn.Linear(num_inputs, num_outputs)}
    features, towards = torch.randn(num_rows, num_inputs), torch.randn(num_rows, num_outputs)
    forward = time_interleaved(
        {system: _reading(layer, features) for system, layer in layers.items()}, repetitions=config.repetitions
    )
    both = time_interleaved(
        {system: _training(layer, features, towards) for system, layer in layers.items()},
        repetitions=config.repetitions,
    )
    giga = 2e-9 * num_rows * num_inputs * num_outputs
    return {
        "layer": name,
        "rows": num_rows,
        "gflops_per_s": giga / forward["ours"].median_s,
        "torch_gflops_per_s": giga / forward["torch"].median_s,
        "forward_ratio": forward["torch"].median_s / forward["ours"].median_s,
        "with_gradients_ratio": both["torch"].median_s / both["ours"].median_s,
        "repetitions": config.repetitions,
    }


def _reading(layer: nn.Linear, features: Tensor) -> Callable[[], None]:
    def read() -> None:
        with torch.inference_mode():
            layer(features)

    return read


def _training(layer: nn.Linear, features: Tensor, towards: Tensor) -> Callable[[], None]:
    features = features.clone().requires_grad_()

    def train() -> None:
        layer(features).backward(towards)

    return train


if __name__ == "__main__":
    main(load_config(LinearBenchmark))
