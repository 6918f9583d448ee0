"""Search settings: ``python -m jobs.search_hyperparameters --config jobs/recipes/search_quickstart.yaml``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.mixing import read_speech
from sottovoce.train.config import TrainingConfig
from sottovoce.train.run import claim_output
from sottovoce.tune.search_report import publish_search, search_table
from sottovoce.tune.space import SearchConfig
from sottovoce.tune.tuner import build_search, run_search


class SearchJob(Config):
    """Fine-tune with many settings and prune trials that fall behind; the same command resumes the search."""

    data: DatasetConfig
    training: TrainingConfig = TrainingConfig()
    """What all trials share."""
    search: SearchConfig = SearchConfig()
    output: Path
    """Folder that receives the trials, search.json, best.yaml and search.html; one that every node can write to."""


def main(job: SearchJob) -> None:
    """Run the job."""
    setup_logging()
    speech = read_speech(job.data.manifest)
    search = build_search(
        job.search,
        job.training,
        train=build_stream(speech, job.data),
        validation=speech.split("validation"),
        output=job.output,
    )
    claim_output(job, job.output, file="search_hyperparameters.yaml")
    record = run_search(search)
    publish_search(record, job.output, data=job.data)
    print(search_table(record))


if __name__ == "__main__":
    main(load_config(SearchJob))
