"""Fine-tune Whisper on manifests.  ``python -m jobs.train_whisper --data.manifest FILE [FILE ...] --output FOLDER``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.mixing import read_speech
from sottovoce.publish.outcome import save_result
from sottovoce.train.config import CHANGEABLE, TrainingConfig
from sottovoce.train.run import build_run, claim_output, run_training


class TrainJob(Config):
    """One fine-tuning run; the same command again resumes it where it stopped."""

    data: DatasetConfig
    training: TrainingConfig = TrainingConfig()
    output: Path
    """Folder for checkpoint, record and curves. Its name is the model's name. All nodes must be able to write to it."""


def main(job: TrainJob) -> None:
    """Run the job."""
    setup_logging()
    speech = read_speech(job.data.manifest)
    run = build_run(
        job.training,
        train=build_stream(speech, job.data),
        validation=speech.split("validation"),
        output=job.output,
    )
    claim_output(job, job.output, may_change=CHANGEABLE)
    run_training(run)
    save_result(run, prepare_rejects=speech.rejects)


if __name__ == "__main__":
    main(load_config(TrainJob))
