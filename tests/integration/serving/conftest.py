"""The one service that most tests of HTTP talk to: the embedded model by default, and a folder of others."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from real_service import running_service

from jobs.promote_model import PromoteJob, main
from serve.models.promotion import Promotion
from serve.settings import Autoscaling, Limits, ServeConfig
from sottovoce.model.adapter import LoraSettings
from sottovoce.model.checkpoint import adapt_base, save_checkpoint
from sottovoce.model.variants import read_variant_record, write_variant_record

PROMOTED = "promoted"
# Bytes: two or three of the models below. All of them, and the default model in both replicas, would take some 550 MiB
# by serve/models/loading.py's count, more than both replicas have: some must go.
_ROOM = 230 * 2**20


@pytest.fixture(scope="package")
def models_folder(
    tiny_checkpoint: Path, tiny_export: Path, micro_assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A models folder with a checkpoint, an adapter on it, exports of which one is refused, and a promoted model."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(micro_assets, models / "micro-checkpoint")
    adapted = adapt_base(str(models / "micro-checkpoint"), LoraSettings(rank=4), token_ids=lambda _: (), seed=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_checkpoint(adapted, models / "adapter")
    shutil.copytree(tiny_export, models / "exported")
    shutil.copytree(tiny_export, models / "refused")
    record = read_variant_record(models / "refused" / "int8")
    write_variant_record(record.model_copy(update={"is_servable": False, "wer": 0.5}), models / "refused" / "int8")
    main(PromoteJob(promotion=Promotion(name=PROMOTED, checkpoint=str(tiny_checkpoint), models_folder=models)))
    return models


@pytest.fixture(scope="package")
def base_url(models_folder: Path, micro_assets: Path, local_ray: str) -> Iterator[str]:
    """The service's base URL for OpenAI's clients."""
    config = ServeConfig(
        model=str(micro_assets),
        variant="torch",
        aliases=("whisper-1", "gpt-4o-transcribe"),  # the AI SDK asks other things of the second
        allow_origins=("https://page.example",),
        models_folder=str(models_folder),
        max_model_bytes=_ROOM,
        limits=Limits(max_body_bytes=2 * 2**20, max_duration_s=60.0),
        transcriber_scaling=Autoscaling(min_replicas=2, max_replicas=2),
    )
    with running_service(config) as url:
        yield url
