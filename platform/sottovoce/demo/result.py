"""The quickstart's result: requests to the service, ``result.json`` for programs, tables and a page for people."""

import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from openai import OpenAI
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.demo.quickstart import Walk
from sottovoce.demo.stages import Stages
from sottovoce.errors import ConfigError
from sottovoce.report.run.plots import Marks, draw_error_rates, draw_losses
from sottovoce.report.template import load_template
from sottovoce.schema import Record, Utterance

_RESULT_FILE = "result.json"
_MARKER = ".quickstart"  # marks a folder that may be emptied
_KEPT = "models"
_NUM_SHOWN = 8  # the first of the test split, whose order the corpus fixes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request: the reference, the transcript and the latency."""

    reference: str
    transcript: str
    latency_ms: float
    """From the call to the parsed response, upload included."""


def ask_service(base_url: str, utterances: Sequence[Utterance], *, model: str, api_key: str = "none") -> list[Answer]:
    """Transcribe utterances one after the other over HTTP.

    Raises:
        openai.APIError: the service answers with an error, or not at all.
    """
    client = OpenAI(base_url=base_url, api_key=api_key)
    answers = []
    for utterance in track(utterances, description="requests"):
        started = time.perf_counter()
        transcription = client.audio.transcriptions.create(
            model=model, file=Path(utterance.audio), language=utterance.language
        )
        latency_ms = 1_000 * (time.perf_counter() - started)
        answers.append(Answer(reference=utterance.text, transcript=transcription.text, latency_ms=latency_ms))
    return answers


class VariantResult(Record):
    """One exported variant."""

    wer: float
    """Fraction, normalized."""
    size_bytes: int
    """Size of the ONNX files that a recognizer reads."""
    rtfx: float
    """Audio seconds per second of recognition on one thread."""


class QuickstartResult(Record):
    """``result.json``."""

    baseline_wer: float
    """WER of the embedded base model on the test utterances, a fraction."""
    finetuned_wer: float
    """WER of the fine-tuned checkpoint in torch on the same utterances."""
    baseline_cer: float
    finetuned_cer: float
    finetuned_rtfx: float
    normalizer: str
    seconds: float
    """From the start of the process to the last response, without installation."""
    stages_s: dict[str, float]
    """Seconds of each stage; some run concurrently."""
    training_s: float
    data_wait: float
    """Fraction of the training steps' time spent waiting for data, of the worker that waited most."""
    num_train: int
    num_test: int
    variants: dict[str, VariantResult]
    latency_median_ms: float
    """Latency of one request at a time, upload included."""
    latency_max_ms: float
    rows: tuple[EvaluationRow, ...]
    """Every evaluation during training, the base model's first."""
    machine: str
    checkpoint: str
    export: str
    report: str
    serve_command: str

    @property
    def wer_reduction(self) -> float:
        """Relative reduction of the WER, a fraction."""
        return 1.0 - self.finetuned_wer / max(self.baseline_wer, 1e-9)


def fresh_folder(folder: Path) -> Path:
    """Empty the folder of an earlier quickstart, or create one; its ``models`` stay, since a service may run them.

    Raises:
        ConfigError: the folder holds files that no quickstart made.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
        raise ConfigError(f"{folder} holds files that no quickstart made; name another --output")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and path.name != _KEPT:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file() and path.name != _MARKER:
            path.unlink()
    (folder / _MARKER).touch()
    return folder.resolve()


def build_result(
    walked: Walk, answers: Sequence[Answer], *, output: Path, stages: Stages, serve_command: str
) -> QuickstartResult:
    """Collect the metrics of all stages; ``seconds`` ends here."""
    baseline, training, export = walked.baseline, walked.training, walked.export
    latencies = [answer.latency_ms for answer in answers]
    return QuickstartResult(
        baseline_wer=baseline.wer,
        finetuned_wer=export.reference_wer,
        baseline_cer=baseline.cer,
        finetuned_cer=export.reference_cer,
        finetuned_rtfx=export.reference_rtfx,
        normalizer=baseline.score.normalizer,
        seconds=stages.total_s,
        stages_s=stages.seconds,
        training_s=training.seconds,
        data_wait=training.data_wait,
        num_train=training.data.num_train,
        num_test=export.num_utterances,
        variants={
            name: VariantResult(wer=record.wer, size_bytes=record.size_bytes, rtfx=record.rtfx)
            for name, record in export.variants.items()
        },
        latency_median_ms=statistics.median(latencies),
        latency_max_ms=max(latencies),
        rows=training.rows,
        machine=describe_machine(),
        checkpoint=_shown(Path(export.checkpoint)),
        export=_shown(walked.export_folder),
        report=_shown(output / "report.html"),
        serve_command=serve_command,
    )


def _shown(path: Path) -> str:
    """Return a path relative to the working folder if it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def describe_machine() -> str:
    """Return processor family, logical cores, memory and Python version in one line."""
    memory_gib = psutil.virtual_memory().total / 2**30
    return f"{platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"


def write_result(result: QuickstartResult, folder: Path) -> None:
    """Write ``result.json``."""
    (folder / _RESULT_FILE).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")


def show_result(result: QuickstartResult, answers: Sequence[Answer], *, console: Console) -> None:
    """Print references beside transcripts, the table of metrics, and the output paths."""
    console.print(_transcript_table(answers[:_NUM_SHOWN], num_test=result.num_test))
    console.print(_metric_table(result))
    console.print(
        f"WER fell by {result.wer_reduction:.0%} in {result.seconds:.0f} s on {result.machine}\n"
        f"checkpoint  {result.checkpoint}\nexport      {result.export}\nreport      {result.report}\n"
        f"serve it    {result.serve_command}",
        highlight=False,
        soft_wrap=True,
    )


def _transcript_table(answers: Sequence[Answer], *, num_test: int) -> Table:
    title = f"The first {len(answers)} of {num_test} test utterances, sent over HTTP by the openai client"
    table = Table("what was said", "what the service answered", title=title)
    for answer in answers:
        table.add_row(answer.reference, answer.transcript)
    return table


def _metric_table(result: QuickstartResult) -> Table:
    table = Table(
        "model", "WER", "size", "RTFx", title=f"{result.num_test} test utterances, {result.normalizer} normalizer"
    )
    table.add_row("micro, before", f"{result.baseline_wer:.1%}", "", "")
    table.add_row("fine-tuned, torch", f"{result.finetuned_wer:.1%}", "", f"{result.finetuned_rtfx:.0f}")
    for name, variant in result.variants.items():
        size = f"{variant.size_bytes / 1e6:.1f} MB"
        table.add_row(f"fine-tuned, ONNX {name}", f"{variant.wer:.1%}", size, f"{variant.rtfx:.0f}")
    table.add_row(
        "request latency", f"{result.latency_median_ms:.0f} ms", "median", f"{result.latency_max_ms:.0f} ms max"
    )
    return table


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
        panels=(draw_losses(result.rows, (), Marks()), draw_error_rates(result.rows, Marks())),
    )
    path.write_text(page, encoding="utf-8")
