"""Merge an adapter into its base.  ``python -m jobs.merge_adapter --checkpoint RUN/checkpoint --output FOLDER``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.publish.merge import merge_to_folder


class MergeJob(Config):
    """Write one complete checkpoint, which any reader of Whisper loads without peft."""

    checkpoint: str
    """Folder or Hub id of an adapter: ``checkpoint`` in the output of a run with method lora or qlora."""
    output: Path
    """Folder that receives the merged checkpoint."""
    base: str | None = None
    """Base model of the adapter, if not the one the adapter names."""


def main(job: MergeJob) -> None:
    """Run the job."""
    setup_logging()
    merge_to_folder(job.checkpoint, job.output, base=job.base)


if __name__ == "__main__":
    main(load_config(MergeJob))
