"""Linear layers computed by oneDNN, for processors on which torch's own matrix library is slow.

On a CPU torch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors alone. oneDNN ships with
torch and uses what any processor offers: on AMD's it is about twice as fast (``benchmarks/linear.py``). The operation
is the one that torch.compile lowers linear layers to. It is private to torch and has no gradient of its own, so

- the environment variable ``SOTTOVOCE_ONEDNN_LINEAR`` switches it: ``auto`` (the default) or ``off``;
- where the private call is missing or fails, torch's own linear computes, and the log warns once.

Shapes: I inputs, O outputs, N rows, which is all dimensions of the input but the last.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from sottovoce.errors import ConfigError

logger = logging.getLogger(__name__)

SETTING = "SOTTOVOCE_ONEDNN_LINEAR"
"""Environment variable: auto uses oneDNN where it is faster and works, off never; read whenever a model is built."""

_FEWEST_ROWS = 16  # below, a product takes microseconds and the call's overhead dominates (benchmarks/linear.py)


def is_enabled() -> bool:
    """Whether models built now compute linear layers by oneDNN: the setting allows it, it is faster, and it works.

    Raises:
        ConfigError: the environment variable is neither auto nor off.
    """
    setting = os.environ.get(SETTING, "auto")
    if setting not in ("auto", "off"):
        raise ConfigError(f"environment variable {SETTING}={setting!r} is unknown; set it to auto or off")
    return setting == "auto" and is_faster() and _works()


def is_faster() -> bool:
    """Whether oneDNN is faster than torch's own matrix library on this machine's processor."""
    name = str(torch.cpu.get_capabilities().get("cpu_name", ""))
    return torch.backends.mkldnn.is_available() and name.startswith("AMD")


def use_onednn(model: nn.Module) -> None:
    """Let all linear layers of a model compute by oneDNN, in place; weights, names and files do not change."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


@contextmanager
def plain_linear(model: nn.Module) -> Iterator[None]:
    """Make all linear layers of a model torch's own inside the context: exporters go by the names of classes."""
    replaced: list[nn.Linear] = [module for module in model.modules() if type(module) is OneDnnLinear]
    for module in replaced:
        module.__class__ = nn.Linear
    try:
        yield
    finally:
        for module in replaced:
            module.__class__ = OneDnnLinear


class OneDnnLinear(nn.Linear):
    """``nn.Linear`` that computes by oneDNN in float32 on a CPU; elsewhere, and while a graph is traced, by torch."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return (..., O) for (..., I)."""
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
        """Return (..., O) for (..., I), (O, I) and (O,)."""
        features = features.contiguous()
        needs_input, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(features if needs_weight else None, weight if needs_input else None)
        return _multiply(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # noqa: ANN401
        """Return the gradients of input, weight and bias for (..., O); None where none is needed."""
        features, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        of_input = _multiply(gradient, weight.t(), None) if needs_input else None
        of_weight = _multiply(rows.t(), features.flatten(0, -2).t(), None) if needs_weight else None
        return of_input, of_weight, rows.sum(dim=0) if needs_bias else None


def _multiply(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    try:
        return _multiply_by_onednn(features, weight, bias)
    except (AttributeError, TypeError, RuntimeError) as error:  # the call is gone, has other arguments, or fails
        product = nn.functional.linear(features, weight, bias)  # raises by itself where the arguments are at fault
        _warn_once(str(error))
        return product


def _multiply_by_onednn(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")
    return product


def _works() -> bool:
    """Whether torch's private call exists and computes what torch's own linear does."""
    ones = partial(torch.ones, device="cpu")  # also when a model is built on the meta device
    features, weight, bias = ones(_FEWEST_ROWS, 2), ones(3, 2), ones(3)
    try:
        return torch.allclose(_multiply_by_onednn(features, weight, bias), nn.functional.linear(features, weight, bias))
    except (AttributeError, TypeError, RuntimeError) as error:
        _warn_once(str(error))
        return False


@cache
def _warn_once(reason: str) -> None:
    logger.warning("torch's private oneDNN call cannot be used, so torch's own linear layers compute: %s", reason)
