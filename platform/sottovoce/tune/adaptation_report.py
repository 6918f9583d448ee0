"""Report an adaptation to trimmed contexts: a self-contained HTML page and a plain-text table."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import get_args

from markupsafe import Markup

from sottovoce.atomic_write import atomic_write
from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.data.mixing import Speech
from sottovoce.data.teacher import TeacherConfig, are_written_by_people
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.source import read_config
from sottovoce.report.svg import SERIES, themed_figure, to_svg
from sottovoce.report.template import load_template
from sottovoce.train.run import TrainingRun
from sottovoce.tune.adaptation import (
    ADAPTATION_FILE,
    AdaptationRecord,
    MeasuredSpeech,
    SystemName,
    measure_adaptation,
    write_context,
)

logger = logging.getLogger(__name__)

PAGE_FILE = "adaptation.html"
_SYSTEMS: tuple[SystemName, ...] = get_args(SystemName)
_SIZE = (7.0, 3.2)  # inches


def finish_adaptation(
    run: TrainingRun, teacher: TeacherConfig, speech: Speech, *, num_threads: int
) -> AdaptationRecord:
    """Measure the published checkpoint of a run, write its margin into it, and write the report.

    Args:
        run: a run whose result is saved.
        teacher: where its speech comes from.
        speech: its manifest. The test split is scored; without one, the validation split.
        num_threads: CPU threads of the measurement.
    """
    output = run.task.output
    context = AudioContext.read(read_config(output / MODEL_FOLDER))
    validation = speech.split("validation")
    test = speech.split("test") or validation
    record = measure_adaptation(
        run.config.base,
        output / MODEL_FOLDER,
        context=context,
        speech=MeasuredSpeech(validation, test, are_written_by_people(teacher, test)),
        normalizer=run.config.normalizer,
        num_threads=num_threads,
    )
    write_context(output / MODEL_FOLDER, replace(context, margin_s=record.margin_s))
    publish_adaptation(record, output)
    return record


def publish_adaptation(record: AdaptationRecord, output: Path) -> None:
    """Write ``adaptation.json`` and ``adaptation.html`` into the run's folder."""
    atomic_write(output / ADAPTATION_FILE, record.model_dump_json(indent=2) + "\n")
    page = load_template("adaptation_page.html.j2", package="sottovoce.tune", folder="").render(
        name=output.resolve().name, record=record, verdict=describe_verdict(record), rates=draw_rates(record)
    )
    atomic_write(output / PAGE_FILE, page)
    logger.info("page %s", output / PAGE_FILE)


def describe_verdict(record: AdaptationRecord) -> str:
    """Return the result in a sentence."""
    stock, adapted, padded = (
        record.find("base, padded"),
        record.find("adapted, trimmed"),
        record.find("adapted, padded"),
    )
    rtfx = {one.system: one.rtfx for one in record.systems}
    speedup = rtfx["adapted, trimmed"] / rtfx["base, padded"]
    return (
        f"Read at the speech's own length plus {record.margin_s:g} s, the adapted model has a WER of "
        f"{100 * adapted.wer:.2f} % and takes 1/{speedup:.1f} of the time; the base model has {100 * stock.wer:.2f} % "
        f"at its longest context, where the adapted one has {100 * padded.wer:.2f} %."
    )


def draw_rates(record: AdaptationRecord) -> Markup:
    """Plot the WER of the systems that are usable in each group; the base model at trimmed contexts is not."""
    shown = [name for name in _SYSTEMS if name != "base, trimmed"]
    groups = list(dict.fromkeys(one.group for one in record.groups))
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for index, system in enumerate(shown):
            results = [record.find(system, group) for group in groups]
            wers = [100 * one.wer for one in results]
            below = [max(0.0, 100 * (one.wer - one.wer_low)) for one in results]
            above = [max(0.0, 100 * (one.wer_high - one.wer)) for one in results]
            positions = [place + (index - 1) * 0.22 for place in range(len(groups))]
            axes.errorbar(
                positions, wers, yerr=(below, above), fmt="o", capsize=3, color=SERIES[index], label=system
            )  # fmt: skip
        axes.set_xticks(range(len(groups)), groups, rotation=30, ha="right")
        axes.set(ylabel="WER, percent", ylim=(0, None))
        axes.grid(alpha=0.3, axis="y")
        axes.set_axisbelow(True)
        axes.legend(framealpha=0)
        return to_svg(
            figure, "WER of each system by language and duration with its 95 % interval; the table lists them"
        )


def adaptation_table(record: AdaptationRecord) -> str:
    """Format the error rates as a plain-text table, followed by the verdict."""
    header = ("group", "utterances", "words", *_SYSTEMS)
    rows = [header]
    for group in dict.fromkeys(one.group for one in record.groups):
        results = [record.find(system, group) for system in _SYSTEMS]
        wers = (f"{100 * one.wer:.2f}" for one in results)
        rows.append((group, str(results[0].num_utterances), str(results[0].num_words), *wers))
    rows.append(("RTFx", "", "", *(f"{one.rtfx:.1f}" for one in record.systems)))
    rows.append((f"words in {record.silence_s:.0f} s of silence", "", "", *(
        str(one.words_in_silence) for one in record.systems
    )))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([f"WER in percent ({record.normalizer})", *lines, describe_verdict(record)])
