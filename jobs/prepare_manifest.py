"""Turn a corpus into a manifest: ``python -m jobs.prepare_manifest --corpus PATH_OR_URI --output FOLDER``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.data.prepare import PrepareConfig, check_rejects, prepare_corpus
from sottovoce.report.corpus.page import write_report


class PrepareJob(Config):
    """Check every row of a corpus: manifest.jsonl gets what can be trained on, rejects.jsonl the rest with reasons."""

    corpus: str
    """Folder or file, local or a URI such as s3://bucket/folder or hf://datasets/user/name."""
    output: Path
    """Folder that receives manifest.jsonl, rejects.jsonl, warnings.jsonl, the report and the settings."""
    prepare: PrepareConfig = PrepareConfig()
    """How the corpus is read, what is kept and how it is split."""


def main(job: PrepareJob) -> None:
    """Run the job."""
    setup_logging()
    write_config(job, job.output / "prepare_manifest.yaml")
    prepared = prepare_corpus(job.corpus, job.output, job.prepare)
    write_report(prepared, job.output)
    check_rejects(prepared, job.output, job.prepare)


if __name__ == "__main__":
    main(load_config(PrepareJob))
