"""Write the page of errors: each scored utterance with its alignment and its sound, worst first."""

import base64
import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from markupsafe import Markup
from rich.progress import track

from sottovoce.atomic_write import atomic_write
from sottovoce.report.errors.rows import Row, build_row, count_errors, list_choices, rank, unit_of
from sottovoce.report.errors.sound import encode_sounds
from sottovoce.report.template import load_template
from sottovoce.scores.scored import ScoredUtterance
from sottovoce.text.alignment import AlignmentKind

logger = logging.getLogger(__name__)

ERRORS_FILE = "errors.html"
PAGE_SIZE = 500  # utterances on one page
NUM_SOUNDS = 2_000  # utterances with sound: four pages of at most 60 MB

_POLICY_END = "media-src data:"  # of the frame's content security policy, which allows no script


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The counts of several utterances."""

    num_utterances: int
    num_wrong: int
    """Utterances with any error."""
    num_units: int
    """Words or characters in the references."""
    unit: str
    """What is counted: words, characters, or both where languages differ."""
    hours: float
    counts: Mapping[AlignmentKind, int]
    """Substituted, deleted and inserted units."""

    @property
    def num_errors(self) -> int:
        """All errors."""
        return sum(self.counts.values())

    @property
    def error_rate(self) -> float:
        """Errors over units, a fraction."""
        return self.num_errors / max(1, self.num_units)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of several pages, as the index lists it."""

    file: str
    first: int
    """Rank of its first utterance."""
    last: int
    worst: int
    """Errors of its first utterance."""
    best: int
    """Errors of its last utterance."""
    totals: Totals


def write_errors_page(
    scored: Sequence[ScoredUtterance],
    folder_or_file: Path,
    *,
    title: str,
    headline: str,
    num_sounds: int = NUM_SOUNDS,
    page_size: int = PAGE_SIZE,
) -> list[Path]:
    """Write every utterance with its alignment, its texts and its sound, the worst first.

    Up to ``page_size`` utterances make one self-contained page. More make pages ``errors_1.html`` and so on, and the
    file itself is their index; such pages of an earlier call are replaced, and removed where they are no longer needed.
    A sound that cannot be read is named at its utterance.

    Args:
        scored: the utterances, in any order.
        folder_or_file: a file that ends in .html, or the folder of ``errors.html``; it is created.
        title: of the page: what was scored.
        headline: the rate to quote, with its interval.
        num_sounds: how many of the worst utterances have their sound embedded.
        page_size: utterances on one page.

    Returns:
        The files, the one to open first.

    Raises:
        OSError: storage refused a file.
    """
    started = time.monotonic()
    file = folder_or_file if folder_or_file.suffix == ".html" else folder_or_file / ERRORS_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    ranked = rank(scored)
    starts = range(0, len(ranked), page_size)
    links = [f"{file.stem}_{number}.html" for number, _ in enumerate(starts, 1)] if len(starts) > 1 else []
    shared = {"title": title, "headline": headline, "totals": sum_up(ranked), "num_sounds": num_sounds}
    written = [file.with_name(link) for link in links] or [file]
    for number, path in enumerate(written, 1):
        start = (number - 1) * page_size
        rows = _build_rows(ranked[start : start + page_size], first=start + 1, num_sounds=num_sounds)
        _write(path, render_page(rows, shared, number=number, links=links, index=file.name))
    if links:
        _write(file, _render_index(ranked, shared, links=links, page_size=page_size))
        written.insert(0, file)
    _remove_older(file, keep=written)
    num_bytes = sum(path.stat().st_size for path in written)
    seconds = time.monotonic() - started
    logger.info("%d utterances in %s, %.1f MB, in %.1f s", len(ranked), file, num_bytes / 1e6, seconds)
    return written


def sum_up(scored: Sequence[ScoredUtterance]) -> Totals:
    """Count utterances, units and errors."""
    units = sorted({unit_of(one) for one in scored})
    return Totals(
        num_utterances=len(scored),
        num_wrong=sum(one.num_errors > 0 for one in scored),
        num_units=sum(one.num_words for one in scored),
        unit=" and ".join(reversed(units)) or "words",
        hours=sum(one.utterance.duration_s for one in scored) / 3600,
        counts=count_errors(scored),
    )


def render_page(
    rows: Sequence[Row], shared: Mapping[str, object], *, number: int = 1, links: Sequence[str] = (), index: str = ""
) -> str:
    """Render one page; all texts are escaped, and its content security policy names the one script that may run.

    Args:
        rows: the utterances of this page.
        shared: what all pages show: title, headline, totals, and the number of sounds.
        number: of this page, from 1.
        links: the files of all pages; empty where there is only one.
        index: the file that lists them.
    """
    utterances = [row.scored.utterance for row in rows]
    script = resources.files(__package__).joinpath("filter.js").read_text(encoding="utf-8")
    template = load_template("page.html.j2", package="sottovoce.report", folder="errors")
    page = template.render(
        shared,
        rows=rows,
        number=number,
        links=links,
        index=index,
        sound_mb=round(sum(len(row.sound.uri) for row in rows if row.sound and row.sound.uri) / 1e6, 1),
        languages=list_choices([utterance.language for utterance in utterances]),
        corpora=list_choices([utterance.corpus for utterance in utterances]),
        speakers=list_choices([utterance.speaker for utterance in utterances]),
        script=Markup(script),
    )
    return _allow_script(page, script)


def _allow_script(page: str, script: str) -> str:
    """Add the hash of one inline script to the page's policy: nothing that a corpus brings in can run beside it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    head, policy, rest = page.partition(_POLICY_END)
    assert policy, "the frame's content security policy has changed"
    return f"{head}{policy}; script-src 'sha256-{digest}'{rest}"


def _build_rows(scored: Sequence[ScoredUtterance], *, first: int, num_sounds: int) -> list[Row]:
    """Build the rows of one page, with a progress bar; ``first`` is the rank of the first."""
    audible = [one.utterance for one in scored[: max(0, num_sounds - first + 1)]]
    sounds = list(track(encode_sounds(audible), total=len(audible), description="sounds")) if audible else []
    padded = [*sounds, *[None] * (len(scored) - len(sounds))]
    return [build_row(one, sound, number=first + i) for i, (one, sound) in enumerate(zip(scored, padded, strict=True))]


def _render_index(
    ranked: Sequence[ScoredUtterance], shared: Mapping[str, object], *, links: Sequence[str], page_size: int
) -> str:
    template = load_template("index.html.j2", package="sottovoce.report", folder="errors")
    return template.render(shared, parts=list(_list_parts(ranked, links, page_size)))


def _list_parts(ranked: Sequence[ScoredUtterance], links: Sequence[str], page_size: int) -> Iterator[Part]:
    for i, link in enumerate(links):
        part = ranked[i * page_size : (i + 1) * page_size]
        yield Part(
            file=link,
            first=i * page_size + 1,
            last=i * page_size + len(part),
            worst=part[0].num_errors,
            best=part[-1].num_errors,
            totals=sum_up(part),
        )


def _write(path: Path, page: str) -> None:
    # A lone surrogate from a JSON escape has no UTF-8: it becomes a question mark, and loses nothing else.
    atomic_write(path, page.encode("utf-8", "replace").decode("utf-8"))


def _remove_older(file: Path, *, keep: Sequence[Path]) -> None:
    """Remove pages of an earlier call, which would be read as pages of this one."""
    numbered = re.compile(rf"{re.escape(file.stem)}_[0-9]+\.html")
    for path in file.parent.iterdir():
        if numbered.fullmatch(path.name) and path not in keep:
            path.unlink()
