"""Linear layers by oneDNN, on processors that torch's own library for matrices holds back.

On a CPU torch multiplies float32 matrices with MKL, which uses AVX-512 on its maker's processors alone. oneDNN comes
with torch, and takes any processor for what it can do: on AMD's it is about twice as fast (``benchmarks/linear.py``).
The operation is the one that torch.compile turns linear layers into; it has no gradient of its own.

Shapes: I inputs, O outputs, N rows, which is all dimensions of the input but the last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_FEWEST_ROWS = 16  # below, a product takes microseconds, and the way to it counts (benchmarks/linear.py)


def is_gain() -> bool:
    """Tell whether this machine's processor is one that oneDNN is faster on."""
    name = str(torch.cpu.get_capabilities().get("cpu_name", ""))
    return torch.backends.mkldnn.is_available() and name.startswith("AMD")


def use_onednn(model: nn.Module) -> None:
    """Let all linear layers of a model compute by oneDNN, in place; weights, names and files stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


@contextmanager
def plain_linear(model: nn.Module) -> Iterator[None]:
    """Make all linear layers of a model torch's own for a while: exporters go by the names of classes."""
    replaced: list[nn.Linear] = [module for module in model.modules() if type(module) is OneDnnLinear]
    for module in replaced:
        module.__class__ = nn.Linear
    try:
        yield
    finally:
        for module in replaced:
            module.__class__ = OneDnnLinear


class OneDnnLinear(nn.Linear):
    """``nn.Linear``, by oneDNN in float32 on a CPU; elsewhere, and while a graph is made, just that."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Give (..., O) for (..., I)."""
        if not self._can_take(input):
            return super().forward(input)
        output: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return output

    def _can_take(self, features: Tensor) -> bool:
        return (
            features.device.type == "cpu"
            and features.dtype == self.weight.dtype == torch.float32
            and features.numel() >= _FEWEST_ROWS * self.in_features
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )


class _Linear(torch.autograd.Function):
    """x W^T + b, and its gradients as two more such products."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401 - torch's
        """Give (..., O) for (..., I), (O, I) and (O,)."""
        features = features.contiguous()
        needs_input, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(features if needs_weight else None, weight if needs_input else None)
        return _multiply(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # noqa: ANN401
        """Give the gradients of input, weight and bias for (..., O); None where nobody needs one."""
        features, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        of_input = _multiply(gradient, weight.t(), None) if needs_input else None
        of_weight = _multiply(rows.t(), features.flatten(0, -2).t(), None) if needs_weight else None
        return of_input, of_weight, rows.sum(dim=0) if needs_bias else None


def _multiply(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")
    return product
