"""What every benchmark shares: the machine it ran on, timing side by side, the result's JSON and its table."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from sottovoce.atomic_write import atomic_write

PACKAGES = (
    "numpy",
    "torch",
    "transformers",
    "ray",
    "datasets",
    "librosa",
    "soundfile",
    "soxr",
    "av",
    "audiomentations",
)
"""Whose versions a result names."""

Row: TypeAlias = Mapping[str, object]
"""One line of a result: names to numbers, text, or further such mappings."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one function over all repetitions."""

    median_s: float
    q1_s: float
    """First quartile; a quarter of the repetitions were faster."""
    q3_s: float
    repetitions: int

    @property
    def iqr_s(self) -> float:
        """Spread of the middle half."""
        return self.q3_s - self.q1_s


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Name the processor, cores, memory and load of this machine, and the versions of Python and packages.

    Args:
        packages: names of distributions; one that is not installed is left out.
    """
    machine = {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "load_1_min": f"{os.getloadavg()[0]:.2f}",
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return machine | {name: found for name in packages if (found := _version(name)) is not None}


def time_interleaved(functions: Mapping[str, Callable[[], object]], *, repetitions: int) -> dict[str, Timing]:
    """Time functions in turns, so that what else the machine does falls on all of them alike.

    Each is called once beforehand (imports, caches), and the order turns around at every other repetition.

    Args:
        functions: name to what is timed.
        repetitions: timed calls of each, at least one.

    Returns:
        The timings under the same names, in the same order.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repetition in range(repetitions):
        names = list(functions)[:: 1 if repetition % 2 == 0 else -1]
        for name in names:
            started = perf_counter()
            functions[name]()
            seconds[name].append(perf_counter() - started)
    return {name: _timing(values) for name, values in seconds.items()}


def write_result(
    path: Path, question: str, results: Sequence[Row], *, machine: Mapping[str, str] | None = None
) -> None:
    """Write what was asked, when, where, and what came out, as JSON.

    Args:
        path: the file; its folder is made.
        question: what the benchmark answers, in a sentence.
        results: one mapping for each line of the table, of values JSON knows.
        machine: from ``describe_machine``; described now when None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "question": question,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": dict(machine if machine is not None else describe_machine()),
        "results": [dict(row) for row in results],
    }
    atomic_write(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Show results on the terminal, one column for each key; numbers are rounded to three digits."""
    table = Table(title=title)
    flat = [_flatten(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    for name in columns:
        table.add_column(name)
    for row in flat:
        table.add_row(*(_format(row.get(name, "")) for name in columns))
    Console(width=None if Console().is_terminal else 160).print(table)


def _timing(seconds: Sequence[float]) -> Timing:
    q1, median, q3 = (float(value) for value in np.percentile(seconds, (25, 50, 75)))
    return Timing(median_s=median, q1_s=q1, q3_s=q3, repetitions=len(seconds))


def _flatten(row: Row, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in row.items():
        flat |= _flatten(value, f"{prefix}{name} ") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _format(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cpu_model() -> str:
    """Read Linux's name of the processor; other systems' own word elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
