"""Join single spoken digits into connected ones: ``python -m jobs.make_digits --source FSDD --output FOLDER``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.data.connected_digits import ConnectedDigitsConfig, make_connected_digits


class DigitsJob(Config):
    """Make an audio folder of connected digits, three to seven, from recordings of single ones."""

    source: Path
    """Audio folder with train/ and test/, one digit in each recording."""
    output: Path
    """Folder that receives the joined utterances."""
    digits: ConnectedDigitsConfig = ConnectedDigitsConfig()
    """How many, and how long."""


def main(job: DigitsJob) -> None:
    """Run the job."""
    setup_logging()
    make_connected_digits(job.source, job.output, job.digits)
    write_config(job, job.output / "make_digits.yaml")


if __name__ == "__main__":
    main(load_config(DigitsJob))
