"""Teach Whisper trimmed contexts:  ``python -m jobs.adapt_context --speech.audio FOLDER --training.base MODEL ...``."""

from pathlib import Path

from pydantic import Field

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.teacher import TeacherConfig, transcribe_once
from sottovoce.publish.outcome import save_result
from sottovoce.train.config import CHANGEABLE, TrainingConfig
from sottovoce.train.run import build_run, claim_output, run_training
from sottovoce.tune.adaptation import ADAPTATION_TRAINING
from sottovoce.tune.adaptation_report import adaptation_table, finish_adaptation


class AdaptJob(Config):
    """Teach a Whisper to read the speech's own length, from speech that nobody transcribed; again, it resumes."""

    speech: TeacherConfig
    training: TrainingConfig = ADAPTATION_TRAINING
    """``base`` is the model to adapt, stock or fine-tuned, and its own teacher."""
    batch_size: int = Field(default=4, ge=1)
    """Largest number of utterances in a microbatch."""
    num_threads: int = Field(default=1, ge=1)
    """CPU threads of the measurement at the end."""
    output: Path
    """Folder for checkpoint, record and report. Its name is the model's name. All nodes must be able to write to it."""


def main(job: AdaptJob) -> None:
    """Run the job."""
    setup_logging()
    claim_output(job, job.output, file="adapt_context.yaml", may_change=CHANGEABLE | {"num_threads"})
    manifest = job.output / "speech" / "manifest.jsonl"
    speech = transcribe_once(job.speech, manifest, checkpoint=job.training.base)
    run = build_run(
        job.training,
        train=build_stream(speech, DatasetConfig(manifest=(manifest,), batch_size=job.batch_size)),
        validation=speech.split("validation"),
        output=job.output,
    )
    run_training(run)
    save_result(run, prepare_rejects=speech.rejects)
    print(adaptation_table(finish_adaptation(run, job.speech, speech, num_threads=job.num_threads)))


if __name__ == "__main__":
    main(load_config(AdaptJob))
