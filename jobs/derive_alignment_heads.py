"""Find a model's alignment heads.  ``python -m jobs.derive_alignment_heads --model FOLDER --manifest FILE``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.manifest import read_manifest
from sottovoce.model.variants import Device
from sottovoce.recognize.scoring import select_split
from sottovoce.schema import Split
from sottovoce.train.resources import resolve_device_here
from sottovoce.words.alignment_heads import derive_alignment_heads


class DeriveJob(Config):
    """Write a checkpoint's alignment heads into its generation config, as each training run does by itself."""

    model: Path
    """Folder of a checkpoint or an adapter, wherever it was trained."""
    manifest: Path
    """Manifest of speech like that the model is for."""
    split: Split = "validation"
    """Split of the manifest to use."""
    device: Device = "auto"


def main(job: DeriveJob) -> None:
    """Run the job."""
    setup_logging()
    utterances = select_split(read_manifest(job.manifest), job.split, limit=None)
    record = derive_alignment_heads(job.model, utterances, device=resolve_device_here(job.device))
    print(record.model_dump_json(indent=2))


if __name__ == "__main__":
    main(load_config(DeriveJob))
