from pathlib import Path

import torch
from safetensors.torch import load, save

from sottovoce.checkpoints.tensors import TensorFile

TENSORS = {
    "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.weight": torch.arange(4, dtype=torch.float16),
    "step": torch.tensor(7.0),
    "empty": torch.zeros(0, 3),
    "long": torch.arange(3),
    "double": torch.tensor([0.1], dtype=torch.float64),
    "int": torch.tensor([1, 2], dtype=torch.int32),
    "short": torch.tensor([3], dtype=torch.int16),
    "byte": torch.tensor([4, 5, 6], dtype=torch.uint8),
    "tiny": torch.tensor([-1], dtype=torch.int8),
    "truth": torch.tensor([True, False]),
    "brain": torch.tensor([1.5, -2.5, 3.0], dtype=torch.bfloat16),
    "größe": torch.ones(1),
}


def test_the_bytes_are_those_the_library_writes() -> None:
    for metadata in ({}, {"format": "pt"}):
        assert b"".join(TensorFile(TENSORS, metadata)) == save(TENSORS, metadata or None)


def test_each_tensor_reads_back_unchanged() -> None:
    loaded = load(b"".join(TensorFile(TENSORS)))
    assert set(loaded) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_a_tensor_that_is_not_contiguous_is_written_in_logical_order() -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(load(b"".join(TensorFile({"turned": turned})))["turned"], turned)


def test_a_file_without_tensors_is_one_the_library_reads(tmp_path: Path) -> None:
    assert load(b"".join(TensorFile({}))) == {}
