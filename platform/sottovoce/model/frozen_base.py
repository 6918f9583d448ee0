"""How a base model is held that an adapter leaves as it is: in half precision, or in 4 bits."""

from importlib.util import find_spec

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from sottovoce.model.context import TrimmedWhisper


def halve_frozen_matrices(whisper: TrimmedWhisper, dtype: torch.dtype) -> None:
    """Hold the matrices that are not trained in the type mixed precision computes with, in place.

    Autocast would turn each into that type at every product, and keep both, so the results are the same to the bit and
    the base takes half the memory. Embeddings stay, with the output layer that shares their weights: a lookup is not
    cast.

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
    """Name what is missing to hold a model in 4 bits; None where nothing is."""
    if not has_gpu:
        return "a CUDA device"
    if not find_spec("bitsandbytes"):
        return "the package bitsandbytes (pip install -c constraints.txt -e '.[qlora]')"
    return None


def four_bit_config(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """Describe NF4 with its constants quantized too (Dettmers et al. 2023, section 3).

    Args:
        compute_dtype: what the matrices are turned into for each product.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
