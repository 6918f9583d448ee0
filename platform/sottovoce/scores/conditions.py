"""Score models under conditions: the same utterances at several levels of noise, bandwidth, codecs, rooms and speed.

Each level's sound is written once and read by every model. Untouched speech is scored first and is part of every curve.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import soundfile
from pydantic import Field

from sottovoce.audio.augmentation.conditions import (
    KINDS,
    Condition,
    Level,
    check_conditions,
    perturb,
    select_conditions,
)
from sottovoce.audio.augmentation.distortions import Scene
from sottovoce.audio.decode import read_audio
from sottovoce.audio.waveform import to_pcm
from sottovoce.config import Config
from sottovoce.errors import ManifestError
from sottovoce.model.variants import Device
from sottovoce.recognize.hypotheses import Algorithm, HowDecoded, Recognition, Recognized, recognize_utterances
from sottovoce.recognize.load import load_recognizer, root_folder
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.scoring import count_cores
from sottovoce.schema import SAMPLING_RATE, Split, Utterance
from sottovoce.scores.condition_record import CLEAN, ConditionScore, ConditionsRecord, LevelScore
from sottovoce.scores.speech import SpeechQuery, read_speech
from sottovoce.text.group_score import score_utterances
from sottovoce.text.normalize import Normalizer, read_spelling
from sottovoce.text.paired import compare_wer
from sottovoce.text.score import Score

logger = logging.getLogger(__name__)

HYPOTHESES_FILE = "hypotheses.jsonl"
"""A line for each model at each level: condition, level, model, and the text of each utterance id."""
_SOUND_FOLDER = ".sound"  # of one level; a killed job leaves it behind, and the next one replaces it


class ConditionsConfig(Config):
    """Which models are scored on which speech, under which conditions."""

    model: str
    """Checkpoint folder or Hub id, or an export folder."""
    against: str | None = None
    """A second model, such as the base; it reads the same sound and is compared level by level."""
    manifest: str
    """Speech to score on: a manifest.jsonl, or a corpus as for jobs.score_manifest."""
    perturb: tuple[str, ...] = KINDS
    """Kinds of conditions (noise, bandwidth, codec, room, speed, level), or single ones such as babble or opus, with
    spaces or commas between them."""
    variant: str = "torch"
    """torch for a checkpoint; the name of a format such as int8 for an export."""
    against_variant: str | None = None
    """Of the second model; None for the same."""
    split: Split = "test"
    """Utterances to score on."""
    language: str = "en"
    """Of a corpus that does not declare it; a manifest does."""
    max_utterances: int | None = Field(default=None, ge=1)
    """Score on the first so many only; None takes all."""
    normalizer: Normalizer = "auto"
    """How texts are made comparable before the rates: auto follows the language; see training.normalizer."""
    decoding: HowDecoded = "service"
    """service decodes as the service does; greedy decodes once at temperature 0, without speech detection."""
    algorithm: Algorithm = "chunked"
    """Of the service's decoding: how recordings longer than the model's context are cut."""
    batch_size: int = Field(default=8, ge=1)
    """Windows recognized at once."""
    num_threads: int = Field(default_factory=count_cores, ge=1)
    """CPU threads of the recognizers, and of what distorts the speech. Default: all cores."""
    device: Device = "auto"
    """Where the recognizers run; auto takes a GPU for the variants that run on one."""
    seed: int = 0
    """Of noise, babble and rooms."""


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """A model to score, with its name on the page."""

    name: str
    recognizer: Recognizer
    spelling: Mapping[str, str] | None = None
    """See ``normalize``."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same at every level."""

    normalizer: Normalizer = "auto"
    recognition: Recognition = Recognition()  # noqa: RUF009 - frozen
    seed: int = 0
    """Of noise, babble and rooms; the same seed makes the same sound."""
    num_threads: int = 1
    """Files of sound written at a time."""


@dataclass(frozen=True, kw_only=True)
class _Scorer:
    """Models and settings while they score."""

    models: Sequence[ComparedModel]
    setting: Setting
    folder: Path
    announce: Callable[[str], None]
    """Called with a description before each scoring of one model at one level."""


def score_conditions(config: ConditionsConfig, folder: Path) -> Iterator[ConditionsRecord]:
    """Read the speech, load the models and score them; see ``score_under_conditions``.

    Raises:
        CheckpointError: a variant that cannot be loaded.
        ConfigError: a condition that does not exist or cannot be made, or a device that the variant does not run on.
        ManifestError: speech that cannot be read, or nothing to score.
    """
    conditions = select_conditions(config.perturb)
    speech = read_speech(
        config.manifest, SpeechQuery(split=config.split, limit=config.max_utterances, language=config.language)
    )
    check_conditions(conditions, speech.utterances)
    chosen = [(config.model, config.variant)]
    if config.against is not None:
        chosen.append((config.against, config.against_variant or config.variant))
    models = [_load(*one, config) for one in chosen]
    recognition = Recognition(
        decoding=config.decoding, algorithm=config.algorithm, batch_size=config.batch_size, shows_progress=True
    )
    setting = Setting(
        normalizer=config.normalizer, recognition=recognition, seed=config.seed, num_threads=config.num_threads
    )
    for record in score_under_conditions(models, speech.utterances, conditions, setting=setting, folder=folder):
        yield record.model_copy(update={"left_out": {**speech.left_out, **record.left_out}})


def score_under_conditions(
    models: Sequence[ComparedModel],
    utterances: Sequence[Utterance],
    conditions: Sequence[Condition],
    *,
    setting: Setting,
    folder: Path,
) -> Iterator[ConditionsRecord]:
    """Score models on untouched speech and at every level of some conditions.

    Args:
        models: one, or two to compare.
        utterances: with absolute audio paths; those that cannot be read are left out.
        conditions: from ``select_conditions``.
        setting: how.
        folder: receives ``hypotheses.jsonl`` and, for as long as a level is scored, its sound: 32 kB for a second.

    Yields:
        The record so far: with untouched speech alone, then after each condition. The last one is complete.

    Raises:
        ConfigError: a codec that this machine lacks, or too few utterances for babble; before anything is scored.
        ManifestError: no utterance that can be read.
        StorageError: storage that does not answer.
    """
    check_conditions(conditions, utterances)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HYPOTHESES_FILE).write_text("", encoding="utf-8")
    num_levels = 1 + sum(len(condition.levels) for condition in conditions)
    announce = _count_steps(num_levels * len(models))
    scorer = _Scorer(models=models, setting=setting, folder=folder, announce=announce)
    record, read = _score_clean(scorer, utterances)
    yield record
    for condition in conditions:
        scored = _score_condition(scorer, condition, read)
        record = record.model_copy(update={"conditions": (*record.conditions, scored)})
        yield record


def write_perturbed(
    utterances: Sequence[Utterance], level: Level, folder: Path, *, seed: int, num_threads: int = 1
) -> list[Utterance]:
    """Write every utterance at one level of a condition, as 16-bit WAV files.

    Args:
        utterances: U, whose babble is made from each other.
        level: of a condition.
        folder: receives one file for each utterance.
        seed: of noise, babble and rooms.
        num_threads: files written at a time; their bytes do not depend on it.

    Returns:
        U utterances that refer to the files, with their durations; otherwise unchanged.
    """
    others = sorted(utterances, key=lambda one: one.id)

    def write(index: int) -> Utterance:
        own = utterances[index]
        waveform = read_audio(own.audio, start_s=own.start_s, duration_s=own.duration_s)
        distorted = perturb(waveform, level, Scene(utterance=own, others=others, seed=seed))
        path = folder / f"{index}.wav"
        soundfile.write(path, to_pcm(distorted), SAMPLING_RATE)
        duration_s = len(distorted) / SAMPLING_RATE
        return own.model_copy(update={"audio": str(path), "start_s": 0.0, "duration_s": duration_s})

    with ThreadPoolExecutor(num_threads) as threads:
        return list(threads.map(write, range(len(utterances))))


def _load(folder: str, variant: str, config: ConditionsConfig) -> ComparedModel:
    recognizer = load_recognizer(folder, variant=variant, num_threads=config.num_threads, device=config.device)
    spelling = read_spelling(root_folder(folder, variant))
    return ComparedModel(name=f"{folder} ({variant})", recognizer=recognizer, spelling=spelling)


def _score_clean(scorer: _Scorer, utterances: Sequence[Utterance]) -> tuple[ConditionsRecord, list[Utterance]]:
    """Score untouched speech.

    Returns:
        The record, and the utterances that were read, with the durations that they were found to have.

    Raises:
        ManifestError: none was.
    """
    first, *others = scorer.models
    tolerant = replace(scorer.setting.recognition, skips_unreadable=True)
    recognized = _recognize(scorer, first, utterances, CLEAN, CLEAN, recognition=tolerant)
    for name, reason in recognized.unreadable.items():
        logger.warning("utterance %s is left out: %s", name, reason)
    read = [
        one.model_copy(update={"duration_s": recognized.durations_s[one.id]})
        for one in utterances
        if one.id in recognized.texts
    ]
    if not read:
        raise ManifestError("utterances", "there is nothing to score that can be read; check the split and the paths")
    texts = [recognized.texts, *(_recognize(scorer, other, read, CLEAN, CLEAN).texts for other in others)]
    level, score = _compare(scorer, read, CLEAN, texts)
    record = ConditionsRecord(
        models=tuple(model.name for model in scorer.models),
        metric=score.headline,
        normalizer=score.normalizer,
        decoding=scorer.setting.recognition.describe(),
        num_utterances=len(read),
        audio_s=sum(one.duration_s for one in read),
        seed=scorer.setting.seed,
        left_out=recognized.unreadable,
        clean=level,
    )
    return record, read


def _score_condition(scorer: _Scorer, condition: Condition, utterances: Sequence[Utterance]) -> ConditionScore:
    levels, setting = [], scorer.setting
    for level in condition.levels:
        with _emptied(scorer.folder / _SOUND_FOLDER) as sound:
            heard = write_perturbed(utterances, level, sound, seed=setting.seed, num_threads=setting.num_threads)
            texts = [_recognize(scorer, one, heard, condition.name, level.name).texts for one in scorer.models]
        levels.append(_compare(scorer, utterances, level.name, texts)[0])
    return ConditionScore(
        name=condition.name,
        title=condition.title,
        axis=condition.axis,
        clean_at=condition.clean_at,
        levels=tuple(levels),
    )


def _recognize(
    scorer: _Scorer,
    model: ComparedModel,
    utterances: Sequence[Utterance],
    condition: str,
    level: str,
    *,
    recognition: Recognition | None = None,
) -> Recognized:
    """Recognize all utterances by one model at one level, and append the texts to ``hypotheses.jsonl``."""
    where = CLEAN if condition == CLEAN else f"{condition} {level}"
    scorer.announce(f"{where}: {model.name}")
    recognized = recognize_utterances(model.recognizer, utterances, recognition or scorer.setting.recognition)
    texts = {one.id: recognized.texts[one.id] for one in utterances if one.id in recognized.texts}
    row = {"condition": condition, "level": level, "model": model.name, "hypotheses": texts}
    with (scorer.folder / HYPOTHESES_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return recognized


def _compare(
    scorer: _Scorer, utterances: Sequence[Utterance], level: str, texts: Sequence[Mapping[str, str]]
) -> tuple[LevelScore, Score]:
    """Return the rates by the headline metric with, of two models, their difference; and the first model's score."""
    normalizer, seed = scorer.setting.normalizer, scorer.setting.seed
    ordered = [[by_id[one.id] for one in utterances] for by_id in texts]
    spellings = [model.spelling for model in scorer.models]
    scores = [
        score_utterances(utterances, hypotheses, normalizer=normalizer, spelling=spelling).score
        for hypotheses, spelling in zip(ordered, spellings, strict=True)
    ]
    rates = tuple(one.cer if one.headline == "cer" else one.wer for one in scores)
    difference = None
    if len(ordered) > 1:
        difference = compare_wer(
            utterances, ordered[1:], ordered[:1], normalizer=normalizer, spelling=spellings[0], seed=seed
        )
    return LevelScore(level=level, rates=rates, difference=difference), scores[0]


def _count_steps(num_steps: int) -> Callable[[str], None]:
    """Return what logs the start of each step with the time that is left; the bar of each step is the recognition's."""
    numbers, started = count(), time.monotonic()

    def announce(description: str) -> None:
        number = next(numbers)
        left_s = (time.monotonic() - started) / number * (num_steps - number) if number else None
        left = "" if left_s is None else f", about {max(1, round(left_s / 60))} min left"
        logger.info("%d of %d%s: %s", number + 1, num_steps, left, description)

    return announce


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Make an empty folder that exists until the block is left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
