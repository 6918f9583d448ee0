import torch

from sottovoce.checkpoints.tensors import HostCopies


def test_a_copy_is_unchanged_while_the_tensor_changes() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    copy = HostCopies().take({"weight": weight})["weight"]
    weight.data += 1.0
    assert torch.equal(copy, torch.ones(2, 3))
    assert not copy.requires_grad


def test_buffers_are_reused_and_reallocated_if_the_shape_changed() -> None:
    copies = HostCopies()
    first = copies.take({"a": torch.zeros(4), "b": torch.zeros(2)})
    second = copies.take({"a": torch.ones(4), "b": torch.ones(3)})
    assert second["a"].data_ptr() == first["a"].data_ptr()
    assert torch.equal(second["a"], torch.ones(4))
    assert torch.equal(second["b"], torch.ones(3))
    assert set(copies.take({"b": torch.ones(3)})) == {"b"}
