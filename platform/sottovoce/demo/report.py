"""The quickstart's report: one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from rich.console import Console

from sottovoce.demo.ask import Answer
from sottovoce.demo.quickstart_result import QuickstartResult, show_result, write_result
from sottovoce.page.plots import SERIES, themed_figure, to_svg
from sottovoce.page.template import load_template
from sottovoce.train.record import EvaluationRow


def publish_result(result: QuickstartResult, answers: Sequence[Answer], output: Path) -> None:
    """Write ``result.json`` and the report, and print the tables."""
    write_result(result, output)
    write_report(result, answers, Path(result.report))
    show_result(result, answers, console=Console())


def write_report(result: QuickstartResult, answers: Sequence[Answer], path: Path) -> None:
    """Write loss and WER curves, the table of variants, and references beside transcripts."""
    page = load_template("report.html.j2", package="sottovoce.demo", folder="assets").render(
        result=result,
        answers=answers,
        curves=draw_curves(result.rows),
    )
    path.write_text(page, encoding="utf-8")


def draw_curves(rows: Sequence[EvaluationRow]) -> Markup:
    """Draw losses and error rates over the steps, as SVG."""
    with themed_figure((10, 3.6)) as figure:
        loss_axes, rate_axes = figure.subplots(1, 2)
        steps = [row.step for row in rows]
        trained = [(row.step, row.training_loss) for row in rows if row.training_loss is not None]
        loss_axes.plot(
            [step for step, _ in trained], [loss for _, loss in trained], marker="o", color=SERIES[0], label="training"
        )
        loss_axes.plot(steps, [row.validation_loss for row in rows], marker="o", color=SERIES[1], label="validation")
        loss_axes.set(title="Loss", xlabel="step", ylabel="per token", ylim=(0, None))
        wers = [100 * row.wer for row in rows]
        rate_axes.plot(steps, wers, marker="o", color=SERIES[2], label="WER")
        low, high = [100 * row.wer_low for row in rows], [100 * row.wer_high for row in rows]
        rate_axes.fill_between(steps, low, high, color=SERIES[2], alpha=0.15, label="WER, 95 % interval")
        rate_axes.plot(steps, [100 * row.cer for row in rows], marker="o", color=SERIES[3], label="CER")
        rate_axes.set(title="Validation error rates", xlabel="step", ylabel="percent", ylim=(0, None))
        for axes in (loss_axes, rate_axes):
            axes.grid(alpha=0.3)
            axes.legend(framealpha=0)
        return to_svg(figure, "Losses and validation error rates over the training steps; the table below lists them")
