"""Score a model on a manifest: ``python -m jobs.score_manifest --model FOLDER --manifest FILE --output score.json``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.data.manifest import read_manifest
from sottovoce.model.variants import Device
from sottovoce.recognize.scoring import Computing, score_folder, score_table, select_split, write_score
from sottovoce.schema import Split
from sottovoce.text.metrics import MetricName
from sottovoce.text.normalize import Normalizer
from sottovoce.text.score import describe_headline


class ScoreJob(Config):
    """Word and character error rates with counts and intervals, and how fast the model was."""

    model: str
    """Checkpoint folder or Hub id, or an export folder."""
    manifest: Path
    """Speech to score on."""
    output: Path
    """JSON file that receives the score and every hypothesis; the settings are written beside it."""
    variant: str = "torch"
    """torch for a checkpoint; the name of a format such as int8 for an export."""
    split: Split = "test"
    """Utterances of the manifest to score on."""
    max_utterances: int | None = None
    """Score on the first so many only; None takes all."""
    normalizer: Normalizer = "auto"
    """How texts are made comparable before the rates: auto follows the language; see training.normalizer."""
    metrics: tuple[MetricName, ...] = ("wer", "cer")
    """Rates to write below metrics in the JSON file, as of the evaluate library: wer, cer, mer (match error rate), ser
    (sentence error rate)."""
    batch_size: int = 8
    """Windows recognized at once."""
    num_threads: int = 1
    """CPU threads of the recognizer."""
    device: Device = "auto"
    """Where the recognizer runs."""


def main(job: ScoreJob) -> None:
    """Run the job."""
    setup_logging()
    write_config(job, job.output.with_suffix(".yaml"))
    result = score_folder(
        job.model,
        job.variant,
        utterances=select_split(read_manifest(job.manifest), job.split, limit=job.max_utterances),
        normalizer=job.normalizer,
        computing=Computing(device=job.device, num_threads=job.num_threads, batch_size=job.batch_size),
        metrics=job.metrics,
    )
    write_score(result, job.output)
    print(score_table(result), describe_headline(result.score), sep="\n")


if __name__ == "__main__":
    main(load_config(ScoreJob))
