"""Several adapters on one base: each computes as if it were merged, and the base stays what it was."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import LoraSettings
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import adapt_base, find_adapted, load_checkpoint, save_checkpoint
from sottovoce.model.context import set_audio_context
from sottovoce.model.shared_base import SharedBase

ROWS = {"rows": range(300, 340), "other_rows": range(320, 400)}
MATRICES = {"plain": ("q_proj", "v_proj"), "rows": ("fc1", "fc2", "out_proj"), "other_rows": ("q_proj", "fc1")}


@pytest.fixture(scope="module")
def adapters(tiny_checkpoint, tmp_path_factory) -> dict[str, Path]:
    """Three adapters with weights that matter; two bring embedding rows, some of them the same rows."""
    folders = {}
    for seed, (name, targets) in enumerate(MATRICES.items()):
        settings = LoraSettings(rank=2 + seed, targets=targets, token_rows=name in ROWS)
        adapted = adapt_base(
            str(tiny_checkpoint), settings, token_ids=lambda _, name=name: ROWS.get(name, ()), seed=seed
        )
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for parameter in adapted.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        set_audio_context(adapted.model.config, AudioContext(2.0, 4.0 + seed))
        adapted.model.generation_config.max_initial_timestamp_index = 10 + seed
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        save_checkpoint(adapted, folders[name])
    return folders


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Read 2 s of a fixed spectrogram and four tokens: (1, 4, V)."""
    features = torch.linspace(-1.0, 1.0, 80 * 200).reshape(1, 80, 200).sin()
    with torch.inference_mode():
        return model(input_features=features, decoder_input_ids=torch.tensor([[50_258, 50_259, 310, 330]])).logits


def num_weights(shared: SharedBase) -> int:
    return sum(weight.numel() for weight in shared.checkpoint.model.parameters())


def test_each_adapter_computes_as_merged_and_the_base_as_before(tiny_checkpoint, adapters):
    shared = SharedBase(tiny_checkpoint)
    model = shared.checkpoint.model
    base = logits(model)
    names = {key: shared.add(find_adapted(folder))[0] for key, folder in adapters.items()}
    merged = {key: logits(load_checkpoint(folder).model) for key, folder in adapters.items()}
    for key in ("plain", "rows", "other_rows", "rows", "plain", "other_rows"):
        with shared.using(names[key]):
            torch.testing.assert_close(logits(model), merged[key], atol=1e-4, rtol=1e-4)  # two products for one
        assert (merged[key] - base).abs().max() > 0.01, "an adapter that changes nothing proves nothing"
    with shared.using(None):
        assert torch.equal(logits(model), base), "to the bit: nothing was added to the weights"


def test_an_adapter_brings_its_context_and_generation_config(tiny_checkpoint, adapters):
    shared = SharedBase(tiny_checkpoint)
    model = shared.checkpoint.model
    first, second = (shared.add(find_adapted(adapters[key]))[0] for key in ("plain", "rows"))
    for name, context, index in ((first, 4.0, 10), (second, 5.0, 11), (None, 10.0, 50)):
        with shared.using(name):
            assert model.audio_context == AudioContext(2.0, context)
            assert model.generation_config.max_initial_timestamp_index == index


def test_removing_one_leaves_the_others(tiny_checkpoint, adapters):
    shared = SharedBase(tiny_checkpoint)
    model = shared.checkpoint.model
    base = logits(model)
    first, second = (shared.add(find_adapted(adapters[key]))[0] for key in ("rows", "other_rows"))
    with shared.using(second):
        before = logits(model)
    with shared.using(first):
        pass
    shared.remove(first)
    assert shared.adapters == (second,)
    assert torch.equal(logits(model), base)
    with shared.using(second):
        assert torch.equal(logits(model), before)
    shared.remove(second)
    assert torch.equal(logits(model), base)
    again, _ = shared.add(find_adapted(adapters["other_rows"]))
    with shared.using(again):
        assert torch.equal(logits(model), before)


def test_an_adapter_takes_only_its_own_weights(tiny_checkpoint, adapters):
    shared = SharedBase(tiny_checkpoint)
    count = num_weights(shared)
    name, _ = shared.add(find_adapted(adapters["plain"]))
    own = sum(weight.numel() for weight in load_file(adapters["plain"] / "adapter_model.safetensors").values())
    assert num_weights(shared) == count + own
    shared.remove(name)
    assert num_weights(shared) == count


def test_files_that_do_not_belong_together_are_refused_and_change_nothing(tiny_checkpoint, adapters, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(adapters["rows"], broken)
    config = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    shared = SharedBase(tiny_checkpoint)
    base = logits(shared.checkpoint.model)
    with pytest.raises(CheckpointError, match="do not belong together"):
        shared.add(find_adapted(broken))
    assert shared.adapters == ()
    assert torch.equal(logits(shared.checkpoint.model), base)
    name, _ = shared.add(find_adapted(adapters["plain"]))
    with shared.using(name):
        torch.testing.assert_close(
            logits(shared.checkpoint.model), logits(load_checkpoint(adapters["plain"]).model), atol=1e-4, rtol=1e-4
        )


def test_weights_of_another_shape_are_refused_and_change_nothing(tiny_checkpoint, adapters, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(adapters["plain"], broken)
    path = broken / "adapter_model.safetensors"
    save_file({name: weight[:, :1].contiguous() for name, weight in load_file(path).items()}, path)
    shared = SharedBase(tiny_checkpoint)
    base = logits(shared.checkpoint.model)
    with pytest.raises(CheckpointError, match="cannot be added"):
        shared.add(find_adapted(broken))
    assert torch.equal(logits(shared.checkpoint.model), base)


@pytest.mark.parametrize("name", ["first", "second"])
def test_one_tensor_of_another_shape_leaves_the_base_to_itself(tiny_checkpoint, adapters, tmp_path, name):
    """All the others fit, and peft has copied them by the time it meets this one."""
    broken = tmp_path / "broken"
    shutil.copytree(adapters["plain"], broken)
    path = broken / "adapter_model.safetensors"
    weights = load_file(path)
    last = max(weights)
    save_file(weights | {last: weights[last][:, :1].contiguous()}, path)
    shared = SharedBase(tiny_checkpoint)
    if name == "second":
        shared.add(find_adapted(adapters["rows"]))
    base, size = logits(shared.checkpoint.model), num_weights(shared)
    with pytest.raises(CheckpointError, match="cannot be added"):
        shared.add(find_adapted(broken))
    with shared.using(None):
        assert torch.equal(logits(shared.checkpoint.model), base)
    assert num_weights(shared) == size, "nothing of it stays in memory"
    good, _ = shared.add(find_adapted(adapters["plain"]))
    with shared.using(good):
        torch.testing.assert_close(
            logits(shared.checkpoint.model), logits(load_checkpoint(adapters["plain"]).model), atol=1e-4, rtol=1e-4
        )


def test_an_adapter_peft_stops_halfway_at_leaves_nothing(tiny_checkpoint, adapters, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(adapters["plain"], broken)
    config = json.loads((broken / "adapter_config.json").read_text())
    halves = {"target_modules": ["q_proj", "final_layer_norm"], "init_lora_weights": False}
    (broken / "adapter_config.json").write_text(json.dumps({**config, **halves}))
    shared = SharedBase(tiny_checkpoint)
    base, size = logits(shared.checkpoint.model), num_weights(shared)
    with pytest.raises(CheckpointError, match="cannot be added"):
        shared.add(find_adapted(broken))
    assert torch.equal(logits(shared.checkpoint.model), base)
    assert num_weights(shared) == size


def test_an_adapter_without_a_tokenizer_leaves_nothing(tiny_checkpoint, adapters, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(adapters["plain"], broken)
    for name in ("tokenizer.json", "vocab.json"):
        (broken / name).unlink()
    shared = SharedBase(tiny_checkpoint)
    size = num_weights(shared)
    with pytest.raises(CheckpointError, match="broken"):
        shared.add(find_adapted(broken))
    assert (shared.adapters, num_weights(shared)) == ((), size)


def test_the_bases_tokenizer_serves_all_adapters_but_those_with_another(tiny_checkpoint, adapters, tmp_path):
    shared = SharedBase(tiny_checkpoint)
    _, alike = shared.add(find_adapted(adapters["plain"]))
    assert alike.tokenizer is shared.checkpoint.tokenizer
    other = tmp_path / "other"
    shutil.copytree(adapters["plain"], other)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    _, own = shared.add(find_adapted(other))
    assert own.tokenizer is not shared.checkpoint.tokenizer
