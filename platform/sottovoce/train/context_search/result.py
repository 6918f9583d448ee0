"""What a comparison of contexts leaves behind for people: a table and a page."""

import logging
from pathlib import Path

from sottovoce.train.context_search.plan import name_context
from sottovoce.train.context_search.record import ContextRecord, ContextResult, EngineScore

PAGE_FILE = "contexts.html"

logger = logging.getLogger(__name__)


def publish_contexts(record: ContextRecord, output: Path) -> None:
    """Write ``contexts.html`` into the comparison's folder."""
    from sottovoce.train.context_search.page import write_page  # draws, which nobody else here needs

    write_page(record, output / PAGE_FILE, name=output.resolve().name)
    logger.info("page %s", output / PAGE_FILE)


def context_table(record: ContextRecord) -> str:
    """Give the contexts and engines as a plain-text table, and the verdict."""
    header = ("context", "audio-s/s trained", "data wait", "engine", "WER percent", "95 % interval", "RTFx")
    rows = [header, *(_row(result, score) for result in record.results for score in result.scores)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    scored = f"{record.num_utterances} utterances of split {record.search.split}, {record.num_words} words"
    return "\n".join([f"scored on {scored} ({record.normalizer})", *lines, record.verdict])


def _row(result: ContextResult, score: EngineScore) -> tuple[str, ...]:
    return (
        name_context(result.context_s),
        f"{result.training_speed:.1f}",
        f"{100 * result.data_wait:.1f} %",
        score.engine,
        f"{100 * score.wer:.2f}",
        f"{100 * score.wer_low:.2f} - {100 * score.wer_high:.2f}",
        f"{score.rtfx:.1f}",
    )
