"""What models take in memory, and bases that adapters share."""

import gc
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import WhisperForConditionalGeneration

from serve.models.loading import FIXED_BYTES, TOKENIZER_BYTES, Footprint, ModelLoader, count_bytes, warm_up
from serve.models.model_plan import ModelPlan
from sottovoce.errors import CheckpointError, LanguageError
from sottovoce.model.adapter import LoraSettings
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import adapt_base, save_checkpoint
from sottovoce.model.variants import onnx_path
from sottovoce.schema import DecodeOptions


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint, tmp_path_factory) -> Path:
    adapted = adapt_base(str(tiny_checkpoint), LoraSettings(rank=2), token_ids=lambda _: (), seed=0)
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    save_checkpoint(adapted, folder)
    return folder


def plan(folder: Path, variant: str = "torch", **more: str) -> ModelPlan:
    return ModelPlan(key=f"{folder.name}@{variant}/1", folder=str(folder), variant=variant, created=1, **more)


def weights(folder: Path) -> int:
    """Bytes of a checkpoint's float32 weights; its file is them and a head of some KB."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_a_checkpoint_takes_its_weights_as_float32(tiny_checkpoint, tmp_path):
    footprint = ModelLoader(num_threads=1).measure(plan(tiny_checkpoint))
    assert footprint.own_bytes == FIXED_BYTES
    assert footprint.base_bytes - TOKENIZER_BYTES == pytest.approx(weights(tiny_checkpoint), rel=0.01)
    half = tmp_path / "half"
    half.mkdir()
    save_file({"a": np.zeros((3, 5), np.float16), "b": np.zeros(7, np.float16)}, half / "model.safetensors")
    assert ModelLoader(num_threads=1).measure(plan(half)).base_bytes == TOKENIZER_BYTES + 4 * (15 + 7)


def test_a_model_counts_where_its_format_runs(tiny_checkpoint, tiny_export):
    on_gpu = ModelLoader(num_threads=1, device="cuda")
    assert on_gpu.measure(plan(tiny_checkpoint)).device == "cuda"
    assert on_gpu.measure(plan(tiny_export / "int8", "int8")).device == "cpu"
    assert ModelLoader(num_threads=1).measure(plan(tiny_checkpoint)).device == "cpu"


def test_an_exported_variant_takes_the_two_graphs_it_reads_and_what_stands_beside_them(tiny_export):
    loader = ModelLoader(num_threads=1)
    sizes = {}
    for variant in ("fp32", "int8"):
        footprint = loader.measure(plan(tiny_export / variant, variant))
        graphs = [onnx_path(tiny_export / variant, part, variant) for part in ("encoder_model", "decoder_model_merged")]
        sizes[variant] = (footprint.own_bytes - FIXED_BYTES - TOKENIZER_BYTES) / sum(
            graph.stat().st_size for graph in graphs
        )
        assert footprint.base is None
    assert sizes == {"fp32": pytest.approx(2.5), "int8": pytest.approx(1.25)}


def test_adapters_of_one_base_are_counted_with_its_weights_once(tiny_checkpoint, adapter):
    loader = ModelLoader(num_threads=1)
    whole, small = loader.measure(plan(tiny_checkpoint)), loader.measure(plan(adapter))
    assert small.base == whole.base
    assert small.own_bytes - FIXED_BYTES == pytest.approx(weights(adapter), rel=0.5)
    assert count_bytes([whole, small, small]) == whole.total_bytes + 2 * small.own_bytes
    assert count_bytes([Footprint(5), Footprint(7)]) == 12
    assisted = loader.measure(plan(adapter, assistant=str(tiny_checkpoint)))
    assert assisted.own_bytes == small.own_bytes + whole.base_bytes


def test_weights_that_cannot_be_read_are_an_error(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        ModelLoader(num_threads=1).measure(plan(tmp_path))


def test_a_base_is_held_once_for_itself_and_its_adapters_and_let_go_with_the_last(
    tiny_checkpoint, adapter, speech_like
):
    loader = ModelLoader(num_threads=1)
    plans = [plan(tiny_checkpoint), plan(adapter)]
    base, adapted = (loader.load(one, loader.measure(one)) for one in plans)
    assert base.recognizer.shared is adapted.recognizer.shared
    assert adapted.recognizer.name == "torch-adapter"
    options = [DecodeOptions(max_new_tokens=4)]
    assert adapted.recognizer.recognize(speech_like[:1], options) == base.recognizer.recognize(speech_like[:1], options)
    loader.unload(adapted)
    assert base.recognizer.shared.adapters == ()
    loader.unload(base)
    assert len(loader._torch_models._bases) == 1
    del base, adapted
    gc.collect()
    assert len(loader._torch_models._bases) == 0


def test_an_adapter_that_changes_what_a_base_shares_gets_a_base_of_its_own(tiny_checkpoint, tmp_path):
    stock = WhisperForConditionalGeneration.from_pretrained(tiny_checkpoint)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "proj_out"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's advice on layers that share a matrix
        get_peft_model(stock, config).save_pretrained(tmp_path)
    loader = ModelLoader(num_threads=1)
    whole, own = loader.measure(plan(tiny_checkpoint)), loader.measure(plan(tmp_path))
    assert own.base != whole.base
    assert own.base_bytes == pytest.approx(TOKENIZER_BYTES + 2 * weights(tiny_checkpoint) + weights(tmp_path), rel=0.05)
    base, merged = (loader.load(plan(one), loader.measure(plan(one))) for one in (tiny_checkpoint, tmp_path))
    assert merged.recognizer.name == "torch"
    assert merged.recognizer.shared is not base.recognizer.shared
    assert base.recognizer.shared.adapters == ()


def test_an_adapter_that_cannot_decode_does_not_stay_in_its_base(tiny_checkpoint, adapter, monkeypatch):
    loader = ModelLoader(num_threads=1)
    base = loader.load(plan(tiny_checkpoint), loader.measure(plan(tiny_checkpoint)))

    def fail(_: object) -> None:
        raise LanguageError("none")

    monkeypatch.setattr("serve.models.loading.warm_up", fail)
    for _ in range(2):
        with pytest.raises(LanguageError):
            loader.load(plan(adapter), loader.measure(plan(adapter)))
    assert base.recognizer.shared.adapters == ()


def test_a_base_is_one_however_its_folder_is_spelled(tiny_checkpoint, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tiny_checkpoint)
    monkeypatch.chdir(tiny_checkpoint.parent)
    folders = (tiny_checkpoint, tmp_path / "link", Path(tiny_checkpoint.name))
    loader = ModelLoader(num_threads=1)
    assert len({loader.measure(plan(folder)).base for folder in folders}) == 1


@pytest.mark.parametrize("has_trim", [True, False])
def test_freed_memory_goes_back_to_the_system_where_its_allocator_can(monkeypatch, has_trim):
    trimmed: list[int] = []
    library = SimpleNamespace(malloc_trim=trimmed.append) if has_trim else SimpleNamespace()
    monkeypatch.setattr("serve.models.loading.ctypes.CDLL", lambda _: library)
    ModelLoader(num_threads=1).free_memory()
    assert trimmed == ([0] if has_trim else [])


def test_warming_up_reads_the_longest_context():
    lengths: list[int] = []
    recognizer = SimpleNamespace(
        context=AudioContext(min_s=2.0, max_s=10.0),
        languages=("en",),
        recognize=lambda windows, options: lengths.extend(len(window) for window in windows),
    )
    warm_up(recognizer)
    assert lengths == [160_000]
