"""The random states of a rank, as values JSON knows: Python's, NumPy's, torch's, and one of torch's for each GPU."""

import base64
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sottovoce.schema import Record


class RandomState(Record):
    """Where every generator of a process stands."""

    python: tuple[int, tuple[int, ...], float | None]
    """``random.getstate()``."""
    numpy: tuple[str, tuple[int, ...], int, int, float]
    """``numpy.random.get_state()``."""
    torch: str
    """Base64 of the CPU generator's bytes."""
    cuda: tuple[str, ...] = ()
    """The same for each device this process sees."""


def read_random_state() -> RandomState:
    """Read the state of this process."""
    name, key, position, has_gauss, gauss = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    python: Any = random.getstate()
    return RandomState(
        python=python,
        numpy=(str(name), tuple(int(one) for one in np.asarray(key)), int(position), int(has_gauss), float(gauss)),
        torch=_to_text(torch.get_rng_state()),
        cuda=tuple(map(_to_text, cuda)),
    )


def set_random_state(state: RandomState) -> None:
    """Put this process where another stood; GPUs that were not there before keep their own state."""
    random.setstate(state.python)
    name, key, position, has_gauss, gauss = state.numpy
    np.random.set_state((name, np.array(key, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(_to_tensor(state.torch))
    if torch.cuda.is_available():
        for device, text in zip(range(torch.cuda.device_count()), state.cuda, strict=False):
            torch.cuda.set_rng_state(_to_tensor(text), device)


def _to_text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _to_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
