"""A frozen base model held in 4 bits, through bitsandbytes (QLoRA, Dettmers et al. 2023)."""

from importlib.util import find_spec

import torch
from transformers import BitsAndBytesConfig


def find_what_four_bit_lacks(*, has_gpu: bool) -> str | None:
    """Name what is missing to hold a model in 4 bits; None where nothing is."""
    if not has_gpu:
        return "a CUDA device"
    return None if find_spec("bitsandbytes") else "the package bitsandbytes (pip install sottovoce[qlora])"


def four_bit_config(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """Describe NF4 with its constants quantized too, as in the paper.

    Args:
        compute_dtype: what the matrices are turned into for each product.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
