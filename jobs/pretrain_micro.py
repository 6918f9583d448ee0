"""Train the embedded base model from scratch: ``python -m jobs.pretrain_micro``; the same command resumes."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.demo.micro import finish_micro
from sottovoce.demo.pool import SpeechPool
from sottovoce.demo.pretrain import PretrainConfig, pretrain

MICRO = Path("platform/sottovoce/assets/micro")


class PretrainJob(Config):
    """Train micro on synthetic speech, measure it at every context, and write it where the package ships it."""

    work: Path = Path("runs/pretrain_micro")
    """Folder for the pool of speech, the training state and TensorBoard logs."""
    output: Path = MICRO
    """Folder that receives the checkpoint."""
    tokenizer: Path = MICRO
    """Folder of Whisper's tokenizer."""
    num_windows: int = 100
    """Test windows for each context and kind of voice."""
    training: PretrainConfig = PretrainConfig()
    """Steps, rates and seed."""


def main(job: PretrainJob) -> None:
    """Run the job."""
    setup_logging()
    write_config(job, job.work / "pretrain_micro.yaml")
    training = pretrain(job.training, output=job.work, tokenizer_folder=job.tokenizer)
    finish_micro(
        training,
        SpeechPool(job.work / "pool"),
        output=job.output,
        tokenizer_folder=job.tokenizer,
        num_windows=job.num_windows,
        command="python -m jobs.pretrain_micro",
    )


if __name__ == "__main__":
    main(load_config(PretrainJob))
