"""Score models under conditions: ``python -m jobs.score_conditions --model FOLDER --manifest FILE --output FOLDER``."""

from pathlib import Path
from typing import Annotated

import tyro

from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.report.conditions.page import conditions_table, publish_conditions
from sottovoce.scores.conditions import ConditionsConfig, score_conditions


class ScoreConditionsJob(Config):
    """Error rates of one or two models on the same speech in noise, rooms, codecs and more, as curves."""

    score: Annotated[ConditionsConfig, tyro.conf.arg(name="")]
    output: Path
    """Folder that receives conditions.html, conditions.json, every hypothesis and the settings."""


def main(job: ScoreConditionsJob) -> None:
    """Run the job."""
    setup_logging()
    write_config(job, job.output / "score_conditions.yaml")
    print(conditions_table(publish_conditions(score_conditions(job.score, job.output), job.output)))


if __name__ == "__main__":
    main(load_config(ScoreConditionsJob))
