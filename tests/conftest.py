"""Fixtures every test may use."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_whisper import narrow_config, narrow_generation
from service_keys import API_KEYS, KEYS_VARIABLE
from transformers import WhisperTokenizerFast

from sottovoce.model.checkpoint import Checkpoint, save_checkpoint
from sottovoce.model.context import AudioContext, TrimmedWhisper, set_audio_context

ROOT = Path(__file__).resolve().parent.parent


def pytest_report_header() -> str:
    names = ("ray", "torch", "transformers", "optimum", "onnxruntime", "numpy")
    return "versions: " + ", ".join(f"{name} {version(name)}" for name in names)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Tiny models are slower with more threads, and much slower where the cores are busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """The Ray of all tests in this process that need one, on four CPUs, with a dashboard; gives its address."""
    import ray  # here: most runs of the tests need none

    os.environ[KEYS_VARIABLE] = ",".join(API_KEYS)
    # "local": without it ray.init joins any cluster that `ray start` left running on this machine.
    context = ray.init(
        address="local", num_cpus=4, include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False
    )
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real human speech beside the checkout; not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real speech at {folder}")
    return folder


@pytest.fixture(scope="session")
def micro_assets(root: Path) -> Path:
    """The embedded base model's folder; its tokenizer is always there, its weights are not while it is trained."""
    return root / "platform" / "sottovoce" / "demo" / "assets" / "micro"


@pytest.fixture(scope="session")
def tiny_checkpoint(micro_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper of width 32, 1+1 layers, with Whisper's tokenizer and contexts of 2 to 10 s."""
    tokenizer = WhisperTokenizerFast.from_pretrained(micro_assets, local_files_only=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = narrow_config(init_std=0.3)  # wide enough that the greedy choice is never a near-tie
        set_audio_context(config, AudioContext(min_s=2.0, max_s=10.0))
        model = TrimmedWhisper(config)
    model.generation_config = narrow_generation(tokenizer, alignment_heads=[[0, 0], [0, 1]])
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(Checkpoint(model=model.eval(), tokenizer=tokenizer, source="tiny"), folder)
    return folder


@dataclass(frozen=True)
class StatedScore:
    """A score nobody measured."""

    wer: float = 0.1
    cer: float = 0.05
    rtfx: float = 20.0
    num_utterances: int = 7


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint's export folder, fp32 and int8, with scores that were stated; takes seconds, so made once."""
    from sottovoce.export.exporter import ExportConfig, export_checkpoint  # optimum takes seconds to import

    folder = tmp_path_factory.mktemp("exports") / "tiny"
    export_checkpoint(ExportConfig(), tiny_checkpoint, folder, score=lambda _folder, _variant: StatedScore())
    return folder


@pytest.fixture(scope="session")
def speech_like() -> list[np.ndarray]:
    """Twelve waveforms of 0.3 to 9.9 s: a wandering tone with harmonics, bursts and noise; not speech, not silence."""
    random = np.random.default_rng(0)
    return [_speech_like(random, duration_s) for duration_s in np.linspace(0.3, 9.9, 12)]


def _speech_like(random: np.random.Generator, duration_s: float) -> np.ndarray:
    num_samples = int(duration_s * 16_000)
    pitch_hz = 120.0 + 60.0 * np.cumsum(random.standard_normal(num_samples)) / np.sqrt(num_samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / 16_000
    voice = sum(random.uniform(0.2, 1.0) * np.sin(k * phase) / k for k in range(1, 20))
    loudness = np.repeat(random.uniform(0.0, 1.0, num_samples // 1_600 + 1), 1_600)[:num_samples]
    return (0.2 * loudness * voice + 0.01 * random.standard_normal(num_samples)).clip(-1, 1).astype(np.float32)
