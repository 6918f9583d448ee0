"""Find the right audio context: ``python -m jobs.search_context --config jobs/recipes/context_quickstart.yaml``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.mixing import read_speech
from sottovoce.train.config import TrainingConfig
from sottovoce.train.run import claim_output
from sottovoce.tune.context_compare import run_context_search
from sottovoce.tune.context_plan import ContextSearchConfig, build_context_search
from sottovoce.tune.context_report import context_table, publish_contexts


class ContextJob(Config):
    """Fine-tune and score with trimmed contexts and with 30 s; the same command resumes the search."""

    data: DatasetConfig
    training: TrainingConfig = TrainingConfig()
    """What all contexts share."""
    search: ContextSearchConfig = ContextSearchConfig()
    output: Path
    """Folder that receives the trainings, contexts.json and contexts.html; one that every node can write to."""


def main(job: ContextJob) -> None:
    """Run the job."""
    setup_logging()
    speech = read_speech(job.data.manifest)
    search = build_context_search(
        job.search,
        job.training,
        train=build_stream(speech, job.data),
        validation=speech.split("validation"),
        scored=speech.split(job.search.split),
        output=job.output,
    )
    claim_output(job, job.output, file="search_context.yaml")
    record = run_context_search(search, prepare_rejects=speech.rejects)
    publish_contexts(record, job.output)
    print(context_table(record))


if __name__ == "__main__":
    main(load_config(ContextJob))
