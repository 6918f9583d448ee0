"""Push a checkpoint to the Hub.  ``HF_TOKEN=... python -m jobs.push_to_hub --checkpoint FOLDER --repo-id NAME``."""

import os
from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.publish.hub import build_api, push_checkpoint


class PushJob(Config):
    """Where a checkpoint goes; the token comes from the environment variable HF_TOKEN."""

    checkpoint: Path
    """The checkpoint folder of a training run."""
    repo_id: str
    """Owner and name on the Hub, as in me/whisper-throat."""
    private: bool = True


def main(job: PushJob) -> None:
    """Run the job."""
    setup_logging()
    api = build_api(os.environ.get("HF_TOKEN"))
    push_checkpoint(job.checkpoint, api, repo_id=job.repo_id, private=job.private)


if __name__ == "__main__":
    main(load_config(PushJob))
