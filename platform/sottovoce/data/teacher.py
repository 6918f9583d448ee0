"""Make a manifest of speech that nobody transcribed: a model transcribes it, as the teacher of an adapted one.

Recordings are cut at pauses into what the model reads at once, on Ray Data actors that each hold the model. Texts that
repeat themselves, and recordings that cannot be read, become rejects.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import ray
import ray.data
from pydantic import Field
from ray.data import ActorPoolStrategy

from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import window_spans
from sottovoce.cluster import join_cluster
from sottovoce.config import Config
from sottovoce.data.check import reject_reason
from sottovoce.data.manifest import read_manifest, write_manifest, write_rejects
from sottovoce.data.mixing import Speech, read_speech
from sottovoce.errors import AudioError, ManifestError
from sottovoce.model.source import resolve_folder
from sottovoce.recognize.decoding.plausibility import is_plausible
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Record, Reject, Split, Utterance, WindowResult

logger = logging.getLogger(__name__)

_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".opus", ".webm"})
_BATCH_SIZE = 8
_PROGRESS_EVERY_S = 10.0


class TeacherConfig(Config):
    """The speech that a teacher transcribes."""

    audio: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Folders of recordings, and manifests. Take speech of every language that the model shall serve: in others it may
    lose accuracy. What people wrote in a manifest is what its validation and test splits are scored against."""
    validation_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Fraction of the recordings that validate, where no manifest names some."""


class Recording(Record):
    """A recording, or a part of one, to transcribe."""

    id: str
    audio: str
    start_s: float = 0.0
    duration_s: float | None = None
    """None reads to the end."""
    text: str = ""
    """What a person wrote; empty if nobody did."""
    language: str | None = None
    """None is detected, window by window."""
    split: Split
    corpus: str | None = None


def transcribe_once(config: TeacherConfig, manifest: Path, *, checkpoint: str) -> Speech:
    """Have a teacher transcribe speech on all CPUs of the cluster, unless that is done; return the manifest's speech.

    Args:
        config: the speech.
        manifest: file to write, or to read if it is there.
        checkpoint: folder or Hub id of the teacher.

    Raises:
        CheckpointError: no such teacher.
        ManifestError: see ``list_recordings`` and ``transcribe_recordings``.
    """
    if not manifest.is_file():
        resolve_folder(checkpoint)  # a missing model is found before any speech is read
        recordings = list_recordings(config.audio, validation_fraction=config.validation_fraction)
        join_cluster()
        cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        num_actors = max(1, int(cluster.get("CPU", 1.0)))
        logger.info("the teacher transcribes %d recordings in %d processes", len(recordings), num_actors)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        transcribe_recordings(recordings, manifest, checkpoint=checkpoint, num_actors=num_actors)
    return read_speech((manifest,))


def are_written_by_people(config: TeacherConfig, utterances: Sequence[Utterance]) -> bool:
    """Whether the texts of utterances are those of a manifest's people, not the teacher's."""
    recordings = list_recordings(config.audio, validation_fraction=config.validation_fraction)
    written = {one.id for one in recordings if one.text and one.split != "train"}
    return all(one.id in written for one in utterances)


def list_recordings(sources: Sequence[Path], *, validation_fraction: float) -> list[Recording]:
    """List manifests' utterances and folders' recordings.

    Args:
        sources: see ``TeacherConfig``.
        validation_fraction: see ``TeacherConfig``. They are chosen by a digest of the id, so that a recording keeps its
            split when others are added.

    Raises:
        ManifestError: a manifest that cannot be read, a folder without recordings, or an id that occurs twice.
    """
    found: list[Recording] = []
    for source in sources:
        found += (
            _of_folder(source, validation_fraction) if source.is_dir() else map(_of_utterance, read_manifest(source))
        )
    ids = {one.id for one in found}
    if len(ids) < len(found):
        raise ManifestError(", ".join(map(str, sources)), "two recordings share an id; name each source once")
    if found and not any(one.split == "validation" for one in found):
        chosen = {one.id for one in found if _share(one.id) < validation_fraction} or {found[-1].id}
        found = [one.model_copy(update={"split": "validation"}) if one.id in chosen else one for one in found]
    return found


def transcribe_recordings(recordings: Sequence[Recording], manifest: Path, *, checkpoint: str, num_actors: int) -> None:
    """Transcribe recordings and write the manifest, with its rejects beside it.

    What a person wrote is kept for validation and test, where it is what counts; training learns the teacher's texts.

    Args:
        recordings: from ``list_recordings``.
        manifest: file to write.
        checkpoint: of the teacher.
        num_actors: copies of the teacher, each on one CPU.

    Raises:
        ManifestError: no recording could be used.
    """
    rows = [{"recording": one.model_dump_json()} for one in recordings]
    dataset = ray.data.from_items(rows).map_batches(
        Teacher,
        fn_constructor_args=(checkpoint,),
        batch_size=_BATCH_SIZE,
        compute=ActorPoolStrategy(size=num_actors),
        num_cpus=1,
    )
    utterances: list[Utterance] = []
    rejects: list[Reject] = []
    last_message = time.monotonic()
    for number, row in enumerate(dataset.iter_rows(), start=1):
        utterances += [Utterance.model_validate_json(one) for one in row["utterances"]]
        rejects += [Reject.model_validate_json(one) for one in row["rejects"]]
        if time.monotonic() - last_message > _PROGRESS_EVERY_S:
            last_message = time.monotonic()
            logger.info("the teacher has transcribed %d of %d recordings", number, len(recordings))
    if not utterances:
        raise ManifestError(
            manifest, f"none of {len(recordings)} recordings could be used; see rejects.jsonl beside it"
        )
    write_rejects(sorted(rejects, key=lambda one: one.id), manifest.with_name("rejects.jsonl"))
    write_manifest(sorted(utterances, key=lambda one: one.id), manifest)
    seconds = sum(one.duration_s for one in utterances)
    logger.info("%d utterances, %.1f min, %d rejects", len(utterances), seconds / 60, len(rejects))


class Teacher:
    """A Ray Data actor that holds the model."""

    def __init__(self, checkpoint: str) -> None:
        """Load the checkpoint."""
        self._recognizer = load_recognizer(checkpoint)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Transcribe the recordings of a batch; each row holds the utterances and the rejects of one."""
        recordings = [Recording.model_validate_json(one) for one in batch["recording"]]
        rows = [self._transcribe(one) for one in recordings]
        return {
            "utterances": [[one.model_dump_json() for one in utterances] for utterances, _ in rows],
            "rejects": [[one.model_dump_json() for one in rejects] for _, rejects in rows],
        }

    def _transcribe(self, recording: Recording) -> tuple[list[Utterance], list[Reject]]:
        try:
            waveform = read_audio(recording.audio, start_s=recording.start_s, duration_s=recording.duration_s)
        except AudioError as error:
            return [], [Reject(id=recording.id, audio=recording.audio, reason=reject_reason(error), detail=str(error))]
        spans = window_spans(waveform, max_window_s=self._recognizer.context.max_s)
        options = DecodeOptions(language=recording.language, temperatures=FALLBACK_TEMPERATURES)
        results = self._recognizer.recognize([waveform[start:end] for start, end in spans], [options] * len(spans))
        utterances: list[Utterance] = []
        rejects: list[Reject] = []
        for number, (span, result) in enumerate(zip(spans, results, strict=True)):
            made = _label(recording, span, result, number=number if len(spans) > 1 else None)
            if made.text == recording.text != "" or _is_usable(result, options):
                utterances.append(made)
            else:
                detail = f"at every temperature the teacher's text is implausible: {result.text[:80]!r}"
                rejects.append(Reject(id=made.id, audio=made.audio, reason="implausible_text", detail=detail))
        return utterances, rejects


def _label(recording: Recording, span: tuple[int, int], result: WindowResult, *, number: int | None) -> Utterance:
    """Return the utterance of one window; ``number`` tells windows of one recording apart."""
    start, end = span
    keeps_text = recording.split != "train" and bool(recording.text) and number is None
    return Utterance(
        id=recording.id if number is None else f"{recording.id}-{number:04d}",
        audio=recording.audio,
        start_s=round(recording.start_s + start / SAMPLING_RATE, 4),
        duration_s=round((end - start) / SAMPLING_RATE, 4),
        text=recording.text if keeps_text else result.text,
        language=result.language,
        recording=recording.id,
        corpus=recording.corpus,
        split=recording.split,
    )


def _is_usable(result: WindowResult, options: DecodeOptions) -> bool:
    return is_plausible(
        replace(options, no_speech_threshold=None),
        text=result.text or " ",
        avg_logprob=result.avg_logprob,
        no_speech_prob=result.no_speech_prob,
    )


def _of_utterance(utterance: Utterance) -> Recording:
    return Recording(
        id=utterance.id,
        audio=utterance.audio,
        start_s=utterance.start_s,
        duration_s=utterance.duration_s,
        text=utterance.text,
        language=utterance.language,
        split=utterance.split,
        corpus=utterance.corpus,
    )


def _of_folder(folder: Path, validation_fraction: float) -> Iterator[Recording]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise ManifestError(folder, f"it holds no recordings ({', '.join(sorted(_SUFFIXES))})")
    for path in paths:
        name = str(path.relative_to(folder))
        split: Split = "validation" if _share(name) < validation_fraction else "train"
        yield Recording(id=name, audio=str(path.resolve()), split=split)


def _share(name: str) -> float:
    """Return a number in [0, 1) that follows from a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
