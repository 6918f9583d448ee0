"""Score a recognizer on a manifest: word and character error rates, and speed."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sottovoce.errors import ManifestError
from sottovoce.model.variants import Device
from sottovoce.recognize.hypotheses import Recognition, recognize_utterances
from sottovoce.recognize.load import load_recognizer, root_folder
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import Split, Utterance
from sottovoce.text.group_score import normalize_pairs, score_utterances
from sottovoce.text.normalize import Normalizer, read_spelling
from sottovoce.text.score import Score

if TYPE_CHECKING:  # importing the evaluate library takes seconds
    from sottovoce.text.metrics import MetricName

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RecognizerScore:
    """Error rates and speed of a recognizer on a set of utterances."""

    name: str
    """The recognizer's name."""
    score: Score
    decoding: str
    """How the texts were decoded; see ``Recognition.describe``."""
    recognition_s: float
    """Seconds of recognition; includes log-mel features, excludes reading and decoding of files."""
    utterances: tuple[Utterance, ...]
    """What was scored, in the given order, with the durations that were read."""
    hypotheses: dict[str, str]
    """The recognized text by utterance id, in the order of ``utterances``."""
    snrs_db: Mapping[str, float | None]
    """The estimated signal-to-noise ratio by utterance id; see ``estimate_snr``."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why an utterance was left out, by its id."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Further metrics by name, with what each computed; see ``text/metrics.py``."""

    @property
    def audio_s(self) -> float:
        """Seconds of audio that were recognized."""
        return sum(one.duration_s for one in self.utterances)

    @property
    def rtfx(self) -> float:
        """Audio seconds per second of recognition; see ``recognition_s``."""
        return self.audio_s / max(self.recognition_s, 1e-9)

    @property
    def wer(self) -> float:
        """Word error rate after normalization, a fraction."""
        return self.score.wer.rate

    @property
    def cer(self) -> float:
        """Character error rate after normalization, a fraction."""
        return self.score.cer.rate

    @property
    def num_utterances(self) -> int:
        """Utterances scored."""
        return len(self.hypotheses)


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Where and how a recognizer computes while it is scored."""

    device: Device = "auto"
    num_threads: int = 1
    """CPU threads; ``count_cores`` for all."""
    batch_size: int = 8
    """Windows recognized at once."""


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def score_folder(
    folder: str | Path,
    variant: str,
    *,
    utterances: Sequence[Utterance],
    normalizer: Normalizer,
    computing: Computing | None = None,
    recognition: Recognition | None = None,
    metrics: "Sequence[MetricName]" = (),
) -> RecognizerScore:
    """Load a variant (see ``load_recognizer``) and score it, also by the ``metrics`` named; see ``score_recognizer``.

    Args:
        folder: checkpoint or export.
        variant: which form of the model.
        utterances: with absolute audio paths.
        normalizer: of both texts.
        computing: device, threads and batches.
        recognition: how the texts are decoded, except its batch size; greedily if None.
        metrics: further metrics.

    Raises:
        CheckpointError: a variant that cannot be loaded.
        AudioError: a recording that cannot be read.
        ConfigError: a device that the variant does not run on.
        ManifestError: no utterances, or none that can be read.
    """
    computing = computing or Computing()
    recognizer = load_recognizer(folder, variant=variant, num_threads=computing.num_threads, device=computing.device)
    spelling = read_spelling(root_folder(folder, variant))
    recognition = replace(recognition or Recognition(), batch_size=computing.batch_size)
    result = _score(recognizer, utterances, recognition, normalizer=normalizer, spelling=spelling)
    if not metrics:
        return result
    from sottovoce.text.metrics import compute_metrics

    hypotheses = list(result.hypotheses.values())
    normalized = normalize_pairs(result.utterances, hypotheses, normalizer=normalizer, spelling=spelling)
    return replace(result, metrics=compute_metrics(metrics, normalized))


def score_recognizer(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    normalizer: Normalizer,
    batch_size: int = 8,
    temperatures: tuple[float, ...] = (0.0,),
    spelling: Mapping[str, str] | None = None,
) -> RecognizerScore:
    """Recognize utterances greedily, without timestamps, and compare the texts with the references.

    Args:
        recognizer: the engine.
        utterances: with absolute audio paths, as ``read_manifest`` returns them. Those longer than the model's context
            are cut at silences.
        normalizer: applied to both texts; ``english`` is replaced by ``basic`` for other languages. The score names it.
        batch_size: windows per call of the engine.
        temperatures: see ``DecodeOptions``; the service falls back, by default a score does not.
        spelling: see ``normalize``.

    Raises:
        AudioError: a recording that cannot be read.
        ManifestError: no utterances.
        LanguageError: a language the model does not know.
    """
    recognition = Recognition(temperatures=temperatures, batch_size=batch_size)
    return _score(recognizer, utterances, recognition, normalizer=normalizer, spelling=spelling)


def select_split(utterances: Sequence[Utterance], split: Split, *, limit: int | None = None) -> list[Utterance]:
    """Return the first utterances of one split, at most ``limit``.

    Raises:
        ManifestError: a split without utterances.
    """
    chosen = [utterance for utterance in utterances if utterance.split == split][:limit]
    if not chosen:
        raise ManifestError(f"split {split}", "the manifest has no utterance in it")
    return chosen


def _score(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    recognition: Recognition,
    *,
    normalizer: Normalizer,
    spelling: Mapping[str, str] | None,
) -> RecognizerScore:
    if not utterances:
        raise ManifestError("utterances", "there is nothing to score; check the split")
    recognized = recognize_utterances(recognizer, utterances, recognition)
    _warn_unreadable(recognized.unreadable, len(utterances))
    read = [one for one in utterances if one.id in recognized.texts]
    texts = {one.id: recognized.texts[one.id] for one in read}
    result = RecognizerScore(
        name=recognizer.name,
        score=score_utterances(read, list(texts.values()), normalizer=normalizer, spelling=spelling).score,
        decoding=recognition.describe(),
        recognition_s=recognized.recognition_s,
        utterances=tuple(one.model_copy(update={"duration_s": recognized.durations_s[one.id]}) for one in read),
        hypotheses=texts,
        snrs_db=recognized.snrs_db,
        unreadable=recognized.unreadable,
    )
    _log_summary(result)
    return result


def _warn_unreadable(unreadable: Mapping[str, str], num_utterances: int) -> None:
    """Log what cannot be read.

    Raises:
        ManifestError: that is everything.
    """
    for name, reason in unreadable.items():
        logger.warning("utterance %s is left out of the score: %s", name, reason)
    if len(unreadable) == num_utterances:
        first = next(iter(unreadable.values()))
        raise ManifestError("utterances", f"none of the {num_utterances} recordings can be read; the first: {first}")


def _log_summary(result: RecognizerScore) -> None:
    logger.info(
        "%s: WER %.2f %%, CER %.2f %% (%s), RTFx %.1f, %d utterances, %.0f s of audio in %.1f s",
        *(result.name, 100 * result.wer, 100 * result.cer, result.score.normalizer, result.rtfx),
        *(result.num_utterances, result.audio_s, result.recognition_s),
    )
