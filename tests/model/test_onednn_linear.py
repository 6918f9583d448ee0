"""Linear layers by oneDNN compute what torch's own do, in both passes; where they cannot, torch's own compute."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from narrow_whisper import narrow_config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sottovoce.errors import ConfigError
from sottovoce.model import onednn_linear
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.onednn_linear import OneDnnLinear, plain_linear, use_onednn

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch comes without oneDNN")


def pair(num_inputs: int, num_outputs: int, *, bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    torchs = nn.Linear(num_inputs, num_outputs, bias=bias)
    ours = copy.deepcopy(torchs)
    use_onednn(nn.ModuleList([ours]))
    assert type(ours) is OneDnnLinear
    return torchs, ours


def gradients(layer: nn.Linear, features: Tensor, towards: Tensor) -> list[Tensor]:
    features = features.detach().requires_grad_()
    output = layer(features)
    output.backward(towards)  # both as they lie in memory
    assert features.grad is not None
    return [output.detach(), features.grad, *(one.grad for one in layer.parameters() if one.grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(16, 24), (3, 50, 24), (2, 3, 7, 24), (1, 24), (4, 1, 24), (0, 24)])
def test_output_and_gradients_are_torchs(shape: tuple[int, ...], bias: bool) -> None:
    torchs, ours = pair(24, 40, bias=bias)
    features, towards = torch.randn(shape), torch.randn(*shape[:-1], 40)
    expected, got = gradients(torchs, features, towards), gradients(ours, features, towards)
    assert len(got) == len(expected) == 3 + bias
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert one.is_contiguous()


def test_input_and_gradient_may_lie_anyhow_in_memory() -> None:
    torchs, ours = pair(24, 40)
    inputs = [torch.randn(24, 30).t(), torch.randn(1, 24).expand(30, 24), torch.randn(30, 48)[:, ::2]]
    towards = [torch.randn(40, 30).t(), torch.randn(1, 40).expand(30, 40), torch.ones(()).expand(30, 40)]
    for features in inputs:
        for direction in towards:
            assert not any(one.is_contiguous() for one in (features, direction))
            torchs.zero_grad()
            ours.zero_grad()
            for one, other in zip(
                gradients(ours, features, direction), gradients(torchs, features, direction), strict=True
            ):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_layer_keeps_nothing_of_what_it_read() -> None:
    _, ours = pair(24, 40)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        ours.requires_grad_(False)(torch.randn(20, 24, requires_grad=True))
    assert [tuple(one.shape) for one in kept] == [(40, 24)]  # the weight


def test_what_is_frozen_gets_no_gradient() -> None:
    _, ours = pair(24, 40)
    ours.weight.requires_grad_(False)
    features = torch.randn(20, 24, requires_grad=True)
    ours(features).sum().backward()
    assert ours.weight.grad is None
    assert ours.bias.grad is not None
    assert features.grad is not None
    ours.requires_grad_(False)
    assert not ours(torch.randn(20, 24)).requires_grad


def test_a_layer_may_be_computed_again_in_the_backward_pass() -> None:
    _, ours = pair(24, 24)
    features = torch.randn(20, 24, requires_grad=True)
    checkpoint(ours, features, use_reentrant=False).sum().backward()
    again = ours.weight.grad
    ours.zero_grad()
    ours(features).sum().backward()
    assert again is not None
    assert ours.weight.grad is not None
    assert torch.equal(again, ours.weight.grad)


def test_other_types_and_autocast_are_torchs_own() -> None:
    torchs, ours = pair(24, 40)
    features = torch.randn(20, 24)
    assert torch.equal(ours.double()(features.double()), torchs.double()(features.double()))
    torchs, ours = pair(24, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(features).dtype == torch.bfloat16
        assert torch.equal(ours(features), torchs(features))


def test_a_graph_of_it_holds_nothing_of_onednn() -> None:
    _, ours = pair(24, 40)
    targets = {str(node.target) for node in torch.export.export(ours, (torch.randn(20, 24),)).graph.nodes}
    assert "aten.linear.default" in targets
    assert not any("mkldnn" in target for target in targets)


def test_for_an_exporter_layers_are_torchs_own_until_it_is_done() -> None:
    torchs, ours = pair(24, 40)
    model = nn.ModuleDict({"ours": ours, "torchs": torchs})

    def kinds() -> list[type[nn.Module]]:
        return [type(model[name]) for name in ("ours", "torchs")]

    def export() -> None:
        assert kinds() == [nn.Linear, nn.Linear]
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), plain_linear(model):
        export()
    assert kinds() == [OneDnnLinear, nn.Linear]


def test_a_whisper_computes_by_onednn_where_that_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[bool, set[type[nn.Module]]] = {}
    models: dict[bool, TrimmedWhisper] = {}
    for gains in (True, False):
        monkeypatch.setattr(onednn_linear, "is_faster", lambda gains=gains: gains)
        models[gains] = TrimmedWhisper(narrow_config())
        kinds[gains] = {type(module) for module in models[gains].modules() if isinstance(module, nn.Linear)}
    assert kinds == {True: {OneDnnLinear}, False: {nn.Linear}}
    assert models[True].state_dict().keys() == models[False].state_dict().keys()


@pytest.mark.parametrize(("name", "expected"), [("AMD EPYC", True), ("Intel(R) Xeon(R) Gold 6330", False), ("", False)])
def test_onednn_is_faster_on_amds_processors_alone(monkeypatch: pytest.MonkeyPatch, name: str, expected: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name})
    assert onednn_linear.is_faster() is expected


def fail(*_: object) -> Tensor:
    raise RuntimeError("could not create a primitive")


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        (SimpleNamespace(), "_linear_pointwise"),
        (SimpleNamespace(_linear_pointwise=lambda: None), "arguments"),
        (SimpleNamespace(_linear_pointwise=fail), "could not create a primitive"),
    ],
    ids=["gone", "other arguments", "fails"],
)
def test_torchs_own_linear_computes_where_the_private_call_cannot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, calls: SimpleNamespace, reason: str
) -> None:
    torchs, ours = pair(24, 40)
    features, towards = torch.randn(20, 24), torch.randn(20, 40)
    expected = gradients(torchs, features, towards)
    monkeypatch.setattr(torch.ops, "mkldnn", calls)
    monkeypatch.setattr(onednn_linear, "is_faster", lambda: True)
    onednn_linear._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        got = gradients(ours, features, towards)
        assert not onednn_linear.is_enabled()
        model = TrimmedWhisper(narrow_config())
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other)
    assert not any(type(module) is OneDnnLinear for module in model.modules())
    assert len(caplog.messages) == 1, "one warning, however many layers"
    assert reason in caplog.messages[0]


def test_arguments_that_do_not_fit_are_an_error_with_and_without_the_private_call() -> None:
    _, ours = pair(24, 40)
    with pytest.raises(RuntimeError, match="shapes"):
        ours(torch.randn(20, 25))


def test_the_environment_switches_onednn_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_linear, "is_faster", lambda: True)
    monkeypatch.delenv(onednn_linear.SETTING, raising=False)
    assert onednn_linear.is_enabled()
    monkeypatch.setenv(onednn_linear.SETTING, "off")
    assert not onednn_linear.is_enabled()
    monkeypatch.setenv(onednn_linear.SETTING, "on")
    with pytest.raises(ConfigError, match=r"SOTTOVOCE_ONEDNN_LINEAR='on'.*auto or off"):
        onednn_linear.is_enabled()
