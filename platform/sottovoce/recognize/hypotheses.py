"""Recognize the utterances of a score: as the service does, or greedily; with progress from the first one on."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Literal, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sottovoce.audio.decode import read_audio
from sottovoce.audio.reference import parse_reference
from sottovoce.audio.silence import window_spans
from sottovoce.errors import AudioError
from sottovoce.recognize.longform.algorithms import build_reader
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES, TRANSCRIBE_OPTIONS, LongFormOptions
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment, join_segments
from sottovoce.recognize.longform.window import Reader, WindowRequest
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.snr import estimate_snr
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Utterance, Waveform

logger = logging.getLogger(__name__)

HowDecoded: TypeAlias = Literal["service", "greedy"]
"""service: as ``Recognizer.transcribe`` and the service do; greedy: one attempt at temperature 0."""
Algorithm: TypeAlias = Literal["chunked", "sequential"]

_UTTERANCES_AT_ONCE = 256
_SAMPLES_AT_ONCE = _UTTERANCES_AT_ONCE * 30 * SAMPLING_RATE  # in memory: 0.5 GB of float32
_LINE_INTERVAL_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How utterances are recognized for a score."""

    decoding: HowDecoded = "greedy"
    """The service's decoding is what users get; greedy decoding is sooner done, and enough to compare variants."""
    algorithm: Algorithm = "chunked"
    """Of the service's decoding: how recordings longer than the model's context are cut; see ``LongFormOptions``."""
    temperatures: tuple[float, ...] | None = None
    """Tried in turn; None for the service's, or 0 alone with greedy decoding."""
    batch_size: int = 8
    """Windows recognized at once."""
    shows_progress: bool = False
    """Show a bar on a terminal; elsewhere, and without it, progress is logged."""
    skips_unreadable: bool = False
    """Leave out recordings that cannot be read, instead of raising an error."""

    def describe(self) -> str:
        """Describe the decoding in one line, for a score."""
        temperatures = ", ".join(f"{one:g}" for one in self.all_temperatures)
        if self.decoding == "greedy":
            return f"greedy: temperature {temperatures}, no timestamps, long recordings cut at silences"
        return f"service: temperatures {temperatures} in turn, timestamps, speech detection, {self.algorithm}"

    @property
    def all_temperatures(self) -> tuple[float, ...]:
        """The temperatures that are tried."""
        if self.temperatures is not None:
            return self.temperatures
        return FALLBACK_TEMPERATURES if self.decoding == "service" else (0.0,)


@dataclass(kw_only=True)
class Recognized:
    """What became of the utterances; those that were read, in the order in which they were recognized."""

    texts: dict[str, str] = field(default_factory=dict)
    """By utterance id."""
    durations_s: dict[str, float] = field(default_factory=dict)
    """Seconds that were read, by id."""
    snrs_db: dict[str, float | None] = field(default_factory=dict)
    """Estimated; see ``estimate_snr``."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why a recording could not be read, by id."""
    recognition_s: float = 0.0
    """Wall time without reading and decoding of files."""


def recognize_utterances(
    recognizer: Recognizer, utterances: Sequence[Utterance], recognition: Recognition
) -> Recognized:
    """Recognize utterances, each in its own language and task.

    The shortest come first, so that those of a batch are of similar length. Rows of Parquet come in their own order, so
    that each row group is read once.

    Args:
        recognizer: the engine.
        utterances: with absolute audio paths; ``duration_s`` is the most that is read.
        recognition: how.

    Raises:
        FileNotFoundError, AudioError: a recording that cannot be read, unless these are skipped.
        StorageError: storage that does not answer.
        LanguageError: a language the model does not know.
    """
    recognized = Recognized()
    recognize = _recognize_as_service if recognition.decoding == "service" else _recognize_greedily
    ordered = sorted(utterances, key=_place)
    with _shown_progress(recognizer.name, len(utterances), is_shown=recognition.shows_progress) as advance:
        for group in _read_groups(ordered, recognition, recognized):
            started = time.perf_counter()
            for utterance, text in recognize(recognizer, group, recognition):
                recognized.texts[utterance.id] = text
                advance(len(recognized.texts) + len(recognized.unreadable))
            recognized.recognition_s += time.perf_counter() - started
    return recognized


def _place(utterance: Utterance) -> float:
    return utterance.duration_s if parse_reference(utterance.audio).row is None else 0.0


_Read: TypeAlias = tuple[Utterance, Waveform]


def _read_groups(
    utterances: Iterable[Utterance], recognition: Recognition, recognized: Recognized
) -> Iterator[list[_Read]]:
    """Read recordings, and yield as many at a time as memory allows, the shortest first."""
    group: list[_Read] = []
    num_samples = 0
    for utterance in utterances:
        try:
            waveform = read_audio(utterance.audio, start_s=utterance.start_s, duration_s=utterance.duration_s)
        except (FileNotFoundError, AudioError) as error:
            if not recognition.skips_unreadable:
                raise
            recognized.unreadable[utterance.id] = str(error)
            continue
        recognized.durations_s[utterance.id] = len(waveform) / SAMPLING_RATE
        recognized.snrs_db[utterance.id] = estimate_snr(waveform)
        group.append((utterance, waveform))
        num_samples += len(waveform)
        if len(group) == _UTTERANCES_AT_ONCE or num_samples >= _SAMPLES_AT_ONCE:
            yield sorted(group, key=lambda one: len(one[1]))
            group, num_samples = [], 0
    if group:
        yield sorted(group, key=lambda one: len(one[1]))


def _options(utterance: Utterance, base: DecodeOptions, recognition: Recognition) -> DecodeOptions:
    temperatures = recognition.all_temperatures
    return replace(base, language=utterance.language, task=utterance.task, temperatures=temperatures)


def _recognize_greedily(
    recognizer: Recognizer, group: Sequence[_Read], recognition: Recognition
) -> Iterator[tuple[Utterance, str]]:
    """Cut waveforms into windows, recognize them in batches across waveforms, and join the texts of each."""
    windows: list[tuple[int, Waveform]] = []
    for index, (_, waveform) in enumerate(group):
        spans = window_spans(waveform, max_window_s=recognizer.context.max_s)
        windows.extend((index, waveform[start:end]) for start, end in spans)
    texts: list[list[str]] = [[] for _ in group]
    options = [_options(utterance, DecodeOptions(), recognition) for utterance, _ in group]
    num_finished = 0
    for first in range(0, len(windows), recognition.batch_size):
        batch = windows[first : first + recognition.batch_size]
        results = recognizer.recognize([window for _, window in batch], [options[index] for index, _ in batch])
        for (index, _), result in zip(batch, results, strict=True):
            texts[index].append(result.text)
        following = first + recognition.batch_size
        num_known = windows[following][0] if following < len(windows) else len(group)
        for index in range(num_finished, num_known):
            yield group[index][0], " ".join(text for text in texts[index] if text)
        num_finished = num_known
    yield from ((utterance, "") for utterance, _ in group[num_finished:])  # silence has no windows


@dataclass(frozen=True)
class _Open:
    """A recording that is being transcribed."""

    utterance: Utterance
    recording: Recording
    reader: Reader
    segments: list[Segment] = field(default_factory=list)


def _recognize_as_service(
    recognizer: Recognizer, group: Sequence[_Read], recognition: Recognition
) -> Iterator[tuple[Utterance, str]]:
    """Transcribe recordings as ``transcribe`` does, with the windows of several in one batch."""
    waiting, opened = deque(group), deque[_Open]()
    while waiting or opened:
        batch: list[tuple[_Open, WindowRequest]] = []
        busy: list[_Open] = []
        while len(batch) < recognition.batch_size and (waiting or opened):
            one = opened.popleft() if opened else _open(recognizer, *waiting.popleft(), recognition)
            room = recognition.batch_size - len(batch)
            requests = list(islice(iter(one.reader.next_window, None), room))
            if requests:
                batch.extend((one, request) for request in requests)
                busy.append(one)
            else:  # no result is pending between two batches, so the recording is finished
                yield one.utterance, join_segments(one.segments)
        opened.extendleft(reversed(busy))
        if batch:
            _recognize_batch(recognizer, batch)


def _open(recognizer: Recognizer, utterance: Utterance, waveform: Waveform, recognition: Recognition) -> _Open:
    recording = Recording(waveform)
    reader = build_reader(
        recording,
        _options(utterance, TRANSCRIBE_OPTIONS, recognition),
        LongFormOptions(algorithm=recognition.algorithm),
        min_window_s=recognizer.context.min_s,
        max_window_s=recognizer.context.max_s,
    )
    return _Open(utterance, recording, reader)


def _recognize_batch(recognizer: Recognizer, batch: Sequence[tuple[_Open, WindowRequest]]) -> None:
    waveforms = [one.recording.waveform(request.start, request.end) for one, request in batch]
    results = recognizer.recognize(waveforms, [request.options for _, request in batch])
    for (one, request), result in zip(batch, results, strict=True):
        one.segments.extend(one.reader.take(request, result))


@contextmanager
def _shown_progress(name: str, num_utterances: int, *, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr until the block is left: a bar on a terminal, else log lines.

    Yields:
        Function that takes the number of finished utterances.
    """
    console = Console(stderr=True)
    has_bar = is_shown and console.is_terminal
    left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left)
    logged_at = 0.0
    if not has_bar:
        logger.info("%s: recognizing %d utterances", name, num_utterances)
    with Progress(*columns, console=console, disable=not has_bar) as progress:
        task = progress.add_task(f"recognizing with {name}", total=num_utterances)

        def show(num_finished: int) -> None:
            nonlocal logged_at
            progress.update(task, completed=num_finished)
            now = time.monotonic()
            if not has_bar and now - logged_at >= _LINE_INTERVAL_S:  # the first one, too
                logged_at = now
                logger.info("%s: recognized %d of %d utterances", name, num_finished, num_utterances)

        yield show
