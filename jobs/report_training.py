"""Write a run's report, also while it runs: ``python -m jobs.report_training --run FOLDER``."""

from pathlib import Path

from sottovoce.config import Config, load_config, setup_logging
from sottovoce.report.diagnosis.diagnose import log_findings
from sottovoce.report.run.page import report_run


class ReportJob(Config):
    """Draw the curves of a run that has finished, still runs or was interrupted, and say what they mean."""

    run: Path
    """The output folder of jobs.train_whisper; it receives report.html."""


def main(job: ReportJob) -> None:
    """Run the job."""
    setup_logging()
    log_findings(report_run(job.run))


if __name__ == "__main__":
    main(load_config(ReportJob))
