"""An optimizer's state as tensors and JSON, without pickle."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sottovoce.schema import Record


class OptimizerValues(Record):
    """What of an optimizer's state is no tensor."""

    state: dict[int, dict[str, Any]]
    """By number of the parameter."""
    param_groups: list[dict[str, Any]]


def split_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], OptimizerValues]:
    """Divide an ``Optimizer.state_dict()``.

    Returns:
        Tensors under ``<number of the parameter>.<key>``, and everything else.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[int, dict[str, Any]] = {}
    for number, entries in state["state"].items():
        values[number] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value
            else:
                values[number][key] = value
    return tensors, OptimizerValues(state=values, param_groups=list(state["param_groups"]))


def join_state(tensors: Mapping[str, Tensor], values: OptimizerValues) -> dict[str, Any]:
    """Give what ``Optimizer.load_state_dict`` reads."""
    state: dict[int, dict[str, Any]] = {number: dict(entries) for number, entries in values.state.items()}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    groups = [{key: _restore(key, value) for key, value in group.items()} for group in values.param_groups]
    return {"state": state, "param_groups": groups}


def _restore(key: str, value: object) -> object:
    """Turn lists back into the tuples JSON does not know, such as betas; parameters are numbered in a list."""
    return tuple(value) if isinstance(value, list) and key != "params" else value
