"""Measure a Whisper that was adapted to trimmed contexts, beside the model it comes from.

Four systems read the same utterances: the base model padded to its longest context (30 s for stock Whisper) and
trimmed, the adapted one trimmed and padded. What a
trimmed context costs is the difference between the first and the third; whether other programs, which pad, may use the
adapted weights, is the difference between the first and the fourth.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from sottovoce.atomic_write import atomic_write
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.context import set_audio_context
from sottovoce.model.source import resolve_folder
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.recognize.scoring import RecognizerScore, score_recognizer
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Record, Utterance, Waveform
from sottovoce.text.group_score import name_normalizer, normalize_pairs
from sottovoce.text.normalize import Normalizer, read_spelling
from sottovoce.text.score import score_pairs
from sottovoce.train.config import TrainingConfig

logger = logging.getLogger(__name__)

ADAPTATION_FILE = "adaptation.json"
MARGINS_S = (0.5, 1.0)
"""The margins that are compared; a context is a multiple of half a second. There is always one: without, whisper-base
in int8 missed the end of one of 47 English recordings and wrote on to the last token; with half a second, of none."""
_MARGIN_TOLERANCE = 0.0025
"""A shorter margin is taken if its WER is at most this much, absolute, above the best."""
_BUCKETS_S = (0.0, 2.0, 5.0, 10.0, 20.0, 30.1)
_SILENCES_S = (1.0, 2.0, 4.0, 8.0, 16.0)

SystemName: TypeAlias = Literal["base, padded", "base, trimmed", "adapted, trimmed", "adapted, padded"]


ADAPTATION_TRAINING = TrainingConfig(
    method="adapt_context", audio_context_s=(2.0, 30.0), padded_probability=0.1, previous_text_probability=0.0
)
"""The training settings of an adaptation that sets no others."""


class GroupResult(Record):
    """Error rates of one system on some of the utterances."""

    system: SystemName
    group: str
    """all, a language's ISO 639-1 code, or a range of durations such as 2 to 5 s."""
    num_utterances: int
    num_words: int
    wer: float
    """Fraction, as all rates."""
    wer_low: float
    """Lower end of the bootstrap 95 % interval."""
    wer_high: float
    cer: float
    insertions: float
    """Words that nobody said, as a fraction of those said: what a model invents on clips that are too short for it."""


class SystemResult(Record):
    """What one system costs, and what it invents."""

    system: SystemName
    rtfx: float
    """Audio seconds per second of recognition, with log-mel and without decoding of files."""
    words_in_silence: int
    """Words written in ``silence_s`` seconds of silence and of faint noise."""


class MarginResult(Record):
    """The adapted model's error rate on the validation split with one margin."""

    margin_s: float
    wer: float


class AdaptationRecord(Record):
    """``adaptation.json``."""

    base: str
    margin_s: float
    """The margin that was chosen, and written into the checkpoint's config."""
    margins: tuple[MarginResult, ...]
    systems: tuple[SystemResult, ...]
    groups: tuple[GroupResult, ...]
    silence_s: float
    is_scored_by_people: bool
    """Whether the references are what people wrote; else they are the base model's own texts at 30 s."""
    normalizer: str

    def find(self, system: SystemName, group: str = "all") -> GroupResult:
        """Return the error rates of one system on one group."""
        return next(one for one in self.groups if one.system == system and one.group == group)


@dataclass(frozen=True)
class MeasuredSpeech:
    """The utterances of a measurement."""

    validation: Sequence[Utterance]
    """They choose the margin."""
    test: Sequence[Utterance]
    """They are scored."""
    is_scored_by_people: bool
    """See ``AdaptationRecord``."""


@dataclass(frozen=True)
class _System:
    name: SystemName
    checkpoint: Checkpoint
    context: AudioContext

    def recognizer(self, num_threads: int) -> TorchRecognizer:
        """Return the recognizer at this system's context; it holds until another system of the checkpoint has one."""
        set_audio_context(self.checkpoint.model.config, self.context)
        return TorchRecognizer(self.checkpoint, num_threads=num_threads)


def measure_adaptation(
    base: str,
    adapted: Path,
    *,
    context: AudioContext,
    speech: MeasuredSpeech,
    normalizer: Normalizer,
    num_threads: int,
) -> AdaptationRecord:
    """Choose the margin on the validation split, and measure all four systems on the test split.

    Args:
        base: checkpoint folder or Hub id of the base model.
        adapted: checkpoint folder of the adapted one.
        context: shortest and longest context it was adapted to.
        speech: what is recognized.
        normalizer: of the texts.
        num_threads: CPU threads.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
    """
    stock, ours = load_checkpoint(base), load_checkpoint(adapted)
    scoring = _Scoring(normalizer, read_spelling(resolve_folder(base)), num_threads)
    margins = [
        MarginResult(
            margin_s=one.margin_s, wer=scoring.score(_System("adapted, trimmed", ours, one), speech.validation).wer
        )
        for one in (replace(context, margin_s=margin_s) for margin_s in MARGINS_S)
    ]
    chosen = choose_margin(margins)
    logger.info("of the margins %s, %g s is chosen", margins, chosen)
    padded = replace(stock.context, min_s=stock.context.max_s, margin_s=0.0)
    trimmed = replace(context, margin_s=chosen)
    systems = (
        _System("base, padded", stock, padded),
        _System("base, trimmed", stock, trimmed),
        _System("adapted, trimmed", ours, trimmed),
        _System("adapted, padded", ours, padded),
    )
    silences = make_silences(context.max_s)
    measured = [scoring.measure(system, speech.test, silences) for system in systems]
    return AdaptationRecord(
        base=base,
        margin_s=chosen,
        margins=tuple(margins),
        systems=tuple(one for one, _ in measured),
        groups=tuple(group for _, groups in measured for group in groups),
        silence_s=sum(len(one) for one in silences) / SAMPLING_RATE,
        is_scored_by_people=speech.is_scored_by_people,
        normalizer=name_normalizer(speech.test, normalizer),
    )


@dataclass(frozen=True)
class _Scoring:
    """How systems are scored."""

    normalizer: Normalizer
    spelling: Mapping[str, str]
    num_threads: int

    def score(self, system: _System, utterances: Sequence[Utterance]) -> RecognizerScore:
        """Score a system, with the fallback over temperatures that a service has."""
        return score_recognizer(
            system.recognizer(self.num_threads),
            utterances,
            normalizer=self.normalizer,
            temperatures=FALLBACK_TEMPERATURES,
            spelling=self.spelling,
        )

    def measure(
        self, system: _System, utterances: Sequence[Utterance], silences: Sequence[Waveform]
    ) -> tuple[SystemResult, list[GroupResult]]:
        """Score a system by groups, and count the words it writes in silence."""
        scored = self.score(system, utterances)
        words = _count_words_in(silences, system.recognizer(self.num_threads))
        result = SystemResult(system=system.name, rtfx=scored.rtfx, words_in_silence=words)
        return result, _group(
            system.name, utterances, scored.hypotheses, normalizer=self.normalizer, spelling=self.spelling
        )


def write_context(checkpoint: Path, context: AudioContext) -> None:
    """Write a context into a checkpoint's config, where every later stage reads it."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | context.config_values
    atomic_write(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def choose_margin(margins: Sequence[MarginResult]) -> float:
    """Return the shortest margin [s] whose WER is no more than a quarter of a point above the lowest."""
    lowest = min(one.wer for one in margins)
    return min(one.margin_s for one in margins if one.wer <= lowest + _MARGIN_TOLERANCE)


def make_silences(longest_s: float) -> list[Waveform]:
    """Return waveforms (S,) without speech, of 1 to 16 s: digital silence, and noise at -60 dB."""
    random = np.random.default_rng(0)
    lengths = [round(min(length_s, longest_s) * SAMPLING_RATE) for length_s in _SILENCES_S]
    return [(level * random.standard_normal(length)).astype(np.float32) for level in (0.0, 1e-3) for length in lengths]


def _count_words_in(silences: Sequence[Waveform], recognizer: TorchRecognizer) -> int:
    language = "en" if "en" in recognizer.languages else None
    options = DecodeOptions(language=language, temperatures=FALLBACK_TEMPERATURES)
    return sum(len(result.text.split()) for result in recognizer.recognize(silences, [options] * len(silences)))


def _group(
    system: SystemName,
    utterances: Sequence[Utterance],
    hypotheses: Mapping[str, str],
    *,
    normalizer: Normalizer,
    spelling: Mapping[str, str],
) -> list[GroupResult]:
    """Score all utterances, each language, and each range of durations."""
    pairs = [(one.text, hypotheses[one.id]) for one in utterances]
    normalized = normalize_pairs(utterances, [text for _, text in pairs], normalizer=normalizer, spelling=spelling)
    members: dict[str, list[int]] = {"all": list(range(len(utterances)))}
    for language in sorted({one.language for one in utterances}):
        members[language] = [index for index, one in enumerate(utterances) if one.language == language]
    for low, high in pairwise(_BUCKETS_S):
        members[f"{low:g} to {high:g} s"] = [
            index for index, one in enumerate(utterances) if low <= one.duration_s < high
        ]
    results: list[GroupResult] = []
    for name, indices in members.items():
        if not indices:
            continue
        score = score_pairs([pairs[i] for i in indices], [normalized[i] for i in indices], normalizer=normalizer)
        results.append(
            GroupResult(
                system=system,
                group=name.replace("30.1", "30"),
                num_utterances=len(indices),
                num_words=score.wer.num_reference,
                wer=score.wer.rate,
                wer_low=score.wer.low,
                wer_high=score.wer.high,
                cer=score.cer.rate,
                insertions=score.wer.insertions / max(1, score.wer.num_reference),
            )
        )
    return results
