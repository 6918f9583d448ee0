"""Score a model on a manifest: ``python -m jobs.score_manifest --model FOLDER --manifest FILE --output score.json``."""

from pathlib import Path
from typing import Annotated

import tyro

from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.report.errors.page import write_errors_page
from sottovoce.scores.run import ScoreConfig, score_model


class ScoreJob(Config):
    """Error rates with counts and intervals, where and how the model errs, and whether it is better than another."""

    score: Annotated[ScoreConfig, tyro.conf.arg(name="")]
    output: Path
    """JSON file that receives the score and every hypothesis; beside it are the settings and errors.html, a page of all
    utterances with their sound, the worst first."""


def main(job: ScoreJob) -> None:
    """Run the job."""
    setup_logging()
    write_config(job, job.output.with_suffix(".yaml"))
    score = score_model(job.score, job.output)
    write_errors_page(score.utterances, job.output.parent, title=score.name, headline=score.headline)
    print(score.describe())


if __name__ == "__main__":
    main(load_config(ScoreJob))
