"""Export a checkpoint: ``python -m jobs.export_model --checkpoint FOLDER --manifest FILE --output FOLDER``."""

from functools import partial
from pathlib import Path

from pydantic import Field

from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.data.manifest import read_manifest
from sottovoce.export.exporter import ExportConfig, export_checkpoint
from sottovoce.model.variants import Device
from sottovoce.recognize.scoring import Computing, count_cores, score_folder, select_split
from sottovoce.schema import Split
from sottovoce.text.normalize import Normalizer
from sottovoce.text.scoring_table import headline_metric


class ExportJob(Config):
    """Write ONNX variants, load each back, score it on held-out speech, and refuse those that lost too much."""

    checkpoint: str
    """Checkpoint folder or Hub id."""
    manifest: Path
    """Speech to score on."""
    output: Path
    """Folder that receives one folder for each variant, variants.json and the settings."""
    split: Split = "test"
    """Utterances of the manifest to score on."""
    max_utterances: int | None = None
    """Score on the first so many only; None takes all."""
    normalizer: Normalizer = "auto"
    """How texts are made comparable before the rates: auto follows the language; see training.normalizer."""
    num_threads: int = Field(default_factory=count_cores, ge=1)
    """CPU threads of the recognizers that are scored. Default: all cores."""
    device: Device = "auto"
    """Where they run. auto takes a GPU for the variants that run on one."""
    export: ExportConfig = ExportConfig()
    """Variants and bound."""


def main(job: ExportJob) -> None:
    """Run the job."""
    setup_logging()
    write_config(job, job.output / "export_model.yaml")
    utterances = select_split(read_manifest(job.manifest), job.split, limit=job.max_utterances)
    computing = Computing(device=job.device, num_threads=job.num_threads)
    score = partial(score_folder, utterances=utterances, normalizer=job.normalizer, computing=computing)
    export_checkpoint(job.export, job.checkpoint, job.output, score=score, metric=headline_metric(utterances))


if __name__ == "__main__":
    main(load_config(ExportJob))
