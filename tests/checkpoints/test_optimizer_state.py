import pytest
import torch

from sottovoce.checkpoints.state import OptimizerValues, join_state, split_state


@pytest.mark.parametrize("optimizer_class", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_an_optimizer_restores_its_state_from_json(
    optimizer_class: type[torch.optim.Optimizer],
) -> None:
    def build() -> tuple[torch.Tensor, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.arange(3.0))
        return weight, optimizer_class([weight], lr=0.1)  # type: ignore[call-arg]

    def step(weight: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        weight.grad = weight.detach() + 1.0
        optimizer.step()

    weight, optimizer = build()
    step(weight, optimizer)
    tensors, values = split_state(optimizer.state_dict())
    again, resumed = build()
    again.data.copy_(weight.data)
    restored = OptimizerValues.model_validate_json(values.model_dump_json())
    resumed.load_state_dict(join_state({name: tensor.clone() for name, tensor in tensors.items()}, restored))
    for _ in range(3):
        step(weight, optimizer)
        step(again, resumed)
    assert torch.equal(weight, again)
    assert resumed.param_groups[0].keys() == optimizer.param_groups[0].keys()


def test_values_that_are_no_tensors_are_kept_beside_them() -> None:
    state = {"state": {0: {"step": 3, "mean": torch.ones(2)}, 1: {"step": 4}}, "param_groups": [{"params": [0, 1]}]}
    tensors, values = split_state(state)
    assert list(tensors) == ["0.mean"]
    joined = join_state(tensors, values)
    assert joined["state"][1] == {"step": 4}
    assert joined["state"][0]["step"] == 3
    assert joined["param_groups"] == [{"params": [0, 1]}]
