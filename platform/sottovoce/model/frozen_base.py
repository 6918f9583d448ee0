"""Store the frozen base model of an adapter in half precision or in 4 bits."""

from importlib.util import find_spec

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from sottovoce.model.context import TrimmedWhisper


def halve_frozen_matrices(whisper: TrimmedWhisper, dtype: torch.dtype) -> None:
    """Convert the matrices that are not trained to the type of mixed precision, in place.

    Autocast would cast each at every product and keep both, so the results are bit-identical and the base takes half
    the memory. Embeddings, and the output layer that shares their weights, stay in float32: autocast does not cast a
    lookup.

    Args:
        whisper: with its adapter.
        dtype: float16 or bfloat16.
    """
    embeddings = {id(module.weight) for module in whisper.modules() if isinstance(module, nn.Embedding)}
    for module in whisper.modules():
        if isinstance(module, nn.Linear | nn.Conv1d) and id(module.weight) not in embeddings:
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


def find_what_four_bit_lacks(*, has_gpu: bool) -> str | None:
    """Return what is missing here to hold a model in 4 bits; None if nothing is."""
    if not has_gpu:
        return "a CUDA device"
    if not find_spec("bitsandbytes"):
        return "the package bitsandbytes (pip install -c constraints.txt -e '.[qlora]')"
    return None


def four_bit_config(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the settings of NF4 with double quantization (Dettmers et al. 2023, section 3).

    Args:
        compute_dtype: type the matrices are dequantized to for each product.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
