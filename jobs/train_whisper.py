"""Fine-tune Whisper on a manifest.  ``python -m jobs.train_whisper --data.manifest FILE --output FOLDER``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream, read_split
from sottovoce.data.manifest import read_rejects
from sottovoce.train.settings import TrainingConfig
from sottovoce.train.trainer import build_run, claim_output, run_training, save_result


class TrainJob(Config):
    """One fine-tuning run; the same command again resumes it where it stopped."""

    data: DatasetConfig
    training: TrainingConfig = TrainingConfig()
    output: Path
    """Folder that receives checkpoint, record and curves, and names the model; one that every node can write to."""


def main(job: TrainJob) -> None:
    """Run the job."""
    setup_logging()
    run = build_run(
        job.training,
        train=build_stream(read_split(job.data.manifest, "train"), job.data),
        validation=read_split(job.data.manifest, "validation"),
        output=job.output,
    )
    claim_output(job, job.output)
    rejects = read_rejects(job.data.manifest.with_name("rejects.jsonl"))
    save_result(run, run_training(run), prepare_rejects=rejects)


if __name__ == "__main__":
    main(load_config(TrainJob))
