"""Fixtures every test may use.

What takes seconds to import stands in the fixtures: xdist reads this file before it starts its workers, and needs none.
"""

import gc
import logging
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import budget
import numpy as np
import pytest
from filelock import FileLock
from service_keys import API_KEYS, KEYS_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
INTEGRATION = ROOT / "tests" / "integration"
ENDURANCE = ROOT / "tests" / "endurance"
INTEGRATION_MARKS = ("ray", "serve", "slow")
"""Each test there has one of them."""
RAY_FOLDERS = (INTEGRATION, ROOT / "tests" / "data" / "corpora")
"""What `make test` looks through for tests with Ray or the server: reading all other files takes half a minute."""

MakeOnce = Callable[[str, Callable[[Path], None]], Path]
"""Take a folder's name and what writes it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    budget.add_option(parser)
    parser.addoption("--endurance-results", metavar="FOLDER", help="see tests/endurance/conftest.py")


def pytest_configure(config: pytest.Config) -> None:
    budget.register(config)


def pytest_report_header() -> str:
    names = ("ray", "torch", "transformers", "optimum", "onnxruntime", "numpy")
    return "versions: " + ", ".join(f"{name} {version(name)}" for name in names)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave unread what the marks leave out anyway: of integration a run without Ray, Serve and slow tests has none."""
    if collection_path == ENDURANCE:
        return True if "not endurance" in config.option.markexpr else None
    without = all(f"not {mark}" in config.option.markexpr for mark in INTEGRATION_MARKS)
    return True if without and collection_path == INTEGRATION else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import without looking for garbage: there are millions of objects and hardly any of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test of integration or endurance that no run would choose, or the wrong one."""
    for item in items:
        if (ENDURANCE in item.path.parents) is (item.get_closest_marker("endurance") is None):
            raise pytest.UsageError(f"{item.nodeid}: the mark endurance and the folder tests/endurance belong together")
        if INTEGRATION in item.path.parents and not any(map(item.get_closest_marker, INTEGRATION_MARKS)):
            raise pytest.UsageError(f"{item.nodeid} has none of the marks {', '.join(INTEGRATION_MARKS)}")
        is_found = any(folder in item.path.parents for folder in RAY_FOLDERS)
        if not is_found and any(map(item.get_closest_marker, ("ray", "serve"))):
            raise pytest.UsageError(f"{item.nodeid} needs Ray, and `make test` would not look for it there")


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Tiny models are slower with more threads, and much slower where the cores are busy."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _tokenizers_read_once() -> Iterator[None]:
    from tokenizers_read_once import read_tokenizers_once

    with pytest.MonkeyPatch.context() as patch:
        read_tokenizers_once(patch)
        yield


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """The Ray of all tests in this process that need one, on four CPUs, with a dashboard; gives its address."""
    import ray  # here: most runs of the tests need none

    os.environ[KEYS_VARIABLE] = ",".join(API_KEYS)
    os.environ["RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "0.5"  # replicas follow the load sooner
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
def real_weights() -> Path:
    """Whisper's published base model beside the checkout; not part of the repository."""
    folder = ROOT.parent / "shared" / "models" / "whisper-base"
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no real weights at {folder}")
    return folder


@pytest.fixture(scope="session")
def micro_assets(root: Path) -> Path:
    """The embedded base model's folder; its tokenizer is always there, its weights are not while it is trained."""
    return root / "platform" / "sottovoce" / "assets" / "micro"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder once for all of xdist's workers, which then read it and change nothing."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, write: Callable[[Path], None]) -> Path:
        folder, unfinished = shared / "made_once" / name, own / f"unfinished-{name}"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                write(unfinished)
                unfinished.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(micro_assets: Path, made_once: MakeOnce) -> Path:
    """A random Whisper of width 32, 1+1 layers, with Whisper's tokenizer and contexts of 2 to 10 s."""
    return made_once("tiny", lambda folder: _save_tiny(micro_assets, folder))


def _save_tiny(micro_assets: Path, folder: Path) -> None:
    import torch
    from narrow_whisper import narrow_config, narrow_generation
    from transformers import WhisperTokenizerFast

    from sottovoce.model.audio_context import AudioContext
    from sottovoce.model.checkpoint import Checkpoint, save_checkpoint
    from sottovoce.model.context import TrimmedWhisper, set_audio_context

    tokenizer = WhisperTokenizerFast.from_pretrained(micro_assets, local_files_only=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = narrow_config(init_std=0.3)  # wide enough that the greedy choice is never a near-tie
        set_audio_context(config, AudioContext(min_s=2.0, max_s=10.0))
        model = TrimmedWhisper(config)
    model.generation_config = narrow_generation(tokenizer, alignment_heads=[[0, 0], [0, 1]])
    save_checkpoint(Checkpoint(model=model.eval(), tokenizer=tokenizer, source="tiny"), folder)


@dataclass(frozen=True)
class StatedScore:
    """A score nobody measured."""

    wer: float = 0.1
    cer: float = 0.05
    rtfx: float = 20.0
    num_utterances: int = 7


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The tiny checkpoint's export folder, fp32 and int8, with scores that were stated."""
    from sottovoce.export.exporter import ExportConfig, export_checkpoint

    def export(folder: Path) -> None:
        export_checkpoint(ExportConfig(), tiny_checkpoint, folder, score=lambda _folder, _variant: StatedScore())

    return made_once("tiny-export", export)


@pytest.fixture(scope="session")
def stated_score() -> StatedScore:
    """A score nobody measured."""
    return StatedScore()


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
