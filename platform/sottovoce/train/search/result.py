"""What a search leaves behind for people: a table, a page, and a recipe with the best settings."""

import logging
from pathlib import Path

import yaml

from sottovoce.config import Config
from sottovoce.train.search.journal import SearchRecord, Trial, rank_trials
from sottovoce.train.search.space import apply_settings
from sottovoce.train.whole_file import write_whole

logger = logging.getLogger(__name__)

BEST_FILE = "best.yaml"


def publish_search(record: SearchRecord, output: Path, *, data: Config) -> None:
    """Write ``best.yaml``, a recipe with the best settings, and ``search.html`` into the search's folder.

    Args:
        record: what was found.
        output: the search's folder.
        data: the settings of the data, as the training job reads them.
    """
    write_best(record, output / BEST_FILE, data=data)
    # Imported here: trials run in processes that import what is beside this file, and draw nothing.
    from sottovoce.train.search.page import PAGE_FILE, write_page

    write_page(record, output / PAGE_FILE, name=output.resolve().name)
    logger.info("recipe %s, page %s", output / BEST_FILE, output / PAGE_FILE)


def write_best(record: SearchRecord, path: Path, *, data: Config) -> None:
    """Write the best trial's settings as a recipe that trains with them."""
    best = record.trials[record.best]
    assert best.best is not None, "the best trial was evaluated"
    recipe = {
        "data": data.model_dump(mode="json"),
        "training": apply_settings(record.training, best.settings).model_dump(mode="json"),
        "output": str(path.parent / "best"),
    }
    heading = (
        "# job: jobs.train_whisper\n"
        f"# Trial {best.number} of {len(record.trials)}: {best.settings.describe()}; "
        f"WER {best.best.wer:.2%} at step {best.best.step}.\n"
    )
    write_whole(path, heading + yaml.safe_dump(recipe, sort_keys=False))


def search_table(record: SearchRecord) -> str:
    """Give the trials as a plain-text table, best first."""
    header = ("trial", "learning rate", "warm-up", "rank", "state", "steps", "best WER percent", "at step")
    rows = [header, *(_row(trial) for trial in rank_trials(record.trials))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    best = record.trials[record.best]
    return "\n".join([f"best: trial {best.number}, {best.settings.describe()}", *lines])


def _row(trial: Trial) -> tuple[str, ...]:
    settings, best = trial.settings, trial.best
    return (
        str(trial.number),
        f"{settings.learning_rate:.2e}",
        str(settings.warmup_steps),
        "-" if settings.lora_rank is None else str(settings.lora_rank),
        trial.state.replace("_", " "),
        str(trial.rows[-1].step) if trial.rows else "0",
        "-" if best is None else f"{100 * best.wer:.2f}",
        "-" if best is None else str(best.step),
    )
