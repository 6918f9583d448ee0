"""Sentences of ``taught_languages`` in two languages that ``micro`` does not know, and the corpus that speaks them.

The grammars were written for this benchmark. Each has some eighty words and 25 000 sentences. Articles, genders and
cases stand in the alternatives, so every sentence is correct, though not always likely.
"""

import csv
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import soundfile
from rich.progress import track

from sottovoce.config import Config
from sottovoce.demo.grammar import Grammar, load_grammar
from sottovoce.demo.pool import speak_sentence
from sottovoce.demo.speech import TRAINING_VOICES, UNSEEN_VOICES
from sottovoce.model.labels import ENGLISH
from sottovoce.schema import SAMPLING_RATE, Split, Waveform

GERMAN: Final[Grammar] = {
    "sentence": (
        "<subject> <verb> <object>.",
        "<subject> <verb> <object> <place>.",
        "<subject> <verb> <when> <object>.",
        "<when> <verb> <subject> <object>.",
        "<subject> ist <when> <place>.",
        "<subject> ist <state>.",
        "ist <subject> <state>?",
        "wo <verb> <subject> <object>?",
        "warum ist <subject> <when> <state>?",
    ),
    "subject": (
        "der Lehrer", "die Ärztin", "mein Bruder", "meine Schwester", "das Kind", "unsere Mutter", "der alte Mann",
        "die junge Frau", "der Bäcker", "ihr Freund",
    ),
    "verb": ("kauft", "sucht", "findet", "bringt", "nimmt", "zeigt", "malt", "wäscht"),
    "object": (
        "den Apfel", "das Buch", "einen Brief", "die Lampe", "den roten Stuhl", "eine Tasse", "das kleine Fahrrad",
        "den Schlüssel", "ein Brot", "die blaue Jacke", "den Hund", "zwei Teller",
    ),
    "place": (
        "im Garten", "in der Küche", "auf dem Markt", "vor dem Haus", "am Bahnhof", "in der Schule", "neben der Kirche",
        "hinter dem Wald",
    ),
    "when": (
        "heute", "morgen", "am Montag", "am Abend", "jeden Tag", "im Winter", "um acht Uhr", "nach dem Essen",
    ),
    "state": ("müde", "sehr glücklich", "krank", "hungrig", "leise", "schon fertig"),
}  # fmt: skip

RUSSIAN: Final[Grammar] = {
    "sentence": (
        "<subject> <verb> <object>.",
        "<subject> <verb> <object> <place>.",
        "<subject> <when> <verb> <object>.",
        "<when> <subject> <verb> <object>.",
        "<subject> сейчас <place>.",
        "<subject> <state>.",
        "<subject> <state>?",
        "где <subject> <verb> <object>?",
        "почему <subject> <when> <state>?",
    ),
    "subject": (
        "учитель", "моя сестра", "мой брат", "старый врач", "наша бабушка", "сосед", "маленькая девочка", "мальчик",
        "добрый дедушка", "молодой повар",
    ),
    "verb": ("покупает", "ищет", "находит", "берёт", "рисует", "показывает", "видит", "моет"),
    "object": (
        "книгу", "письмо", "красное яблоко", "новую лампу", "белую чашку", "ключ", "старый велосипед", "свежий хлеб",
        "синюю куртку", "собаку", "большой стол", "две тарелки",
    ),
    "place": (
        "в саду", "на кухне", "на рынке", "перед домом", "на вокзале", "в школе", "возле церкви", "за лесом",
    ),
    "when": (
        "сегодня", "завтра", "в понедельник", "вечером", "каждый день", "зимой", "в восемь часов", "после обеда",
    ),
    "state": ("дома", "на работе", "в отпуске", "очень далеко", "уже рядом", "снова в городе"),
}  # fmt: skip

_TRAINED = ("f1", "f2", "f3", "f4", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "linda", "david", "Andy", "steph")
_UNSEEN = ("f5", "m8", "john")  # variants of the voices that micro's own training leaves out, too


@dataclass(frozen=True, kw_only=True)
class Course:
    """The sentences of one language and the voices that say them."""

    grammar: Grammar
    training_voices: tuple[str, ...]
    test_voices: tuple[str, ...]


def _voices(accent: str, variants: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{accent}+{variant}" for variant in variants)


TAUGHT: Final[Mapping[str, Course]] = {
    code: Course(grammar=grammar, training_voices=_voices(code, _TRAINED), test_voices=_voices(code, _UNSEEN))
    for code, grammar in {"de": GERMAN, "ru": RUSSIAN}.items()
}
"""The languages to teach, one in Latin letters and one not, by Whisper's code, which is espeak-ng's, too."""


def courses() -> dict[str, Course]:
    """Return what is spoken, by language: English, as ``micro`` knows it, and ``TAUGHT``."""
    english = Course(grammar=load_grammar("sentences"), training_voices=TRAINING_VOICES, test_voices=UNSEEN_VOICES)
    return {ENGLISH: english, **TAUGHT}


class CorpusConfig(Config):
    """Size of the corpus; each number counts the utterances of one language."""

    num_train: int = 300
    """Utterances that train."""
    num_validation: int = 20
    """Utterances that choose the best checkpoint; their sentences are not in training, their voices are."""
    num_test: int = 100
    """Utterances that score both models; neither their sentences nor their voices are in training."""
    num_english: int = 900
    """Utterances of English that train, so that the model does not forget it."""
    seed: int = 5
    """Seed of sentences and voices."""


def make_corpus(folder: Path, config: CorpusConfig) -> Path:
    """Write the corpus as an audio folder, with file_name, text, language, speaker and split in ``metadata.csv``.

    No sentence occurs in two splits, and the voices of the test split speak nowhere else.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "text", "language", "speaker", "split"))
        for language, course in courses().items():
            spoken = _speak(course, _count(language, config), random.Random(f"{config.seed}-{language}"))
            total = sum(_count(language, config).values())
            for number, (split, text, voice, waveform) in enumerate(track(spoken, total=total, description=language)):
                name = f"{language}_{number:04d}.wav"
                soundfile.write(folder / name, waveform, SAMPLING_RATE, subtype="PCM_16")
                writer.writerow((name, text, language, voice, split))
    return folder


def _count(language: str, config: CorpusConfig) -> dict[Split, int]:
    """Return the utterances of each split, the test first, so that training leaves its sentences out."""
    num_train = config.num_english if language == ENGLISH else config.num_train
    return {"test": config.num_test, "validation": config.num_validation, "train": num_train}


def _speak(
    course: Course, counts: Mapping[Split, int], generator: random.Random
) -> Iterator[tuple[Split, str, str, Waveform]]:
    """Yield split, text, voice and speech of each utterance."""
    splits: dict[str, Split] = {}
    for split, count in counts.items():
        voices = course.test_voices if split == "test" else course.training_voices
        num_spoken = 0
        while num_spoken < count:
            text, voice, waveform = speak_sentence(course.grammar, generator, symbol="sentence", voices=voices)
            if splits.setdefault(text, split) == split:
                num_spoken += 1
                yield split, text, voice.name, waveform
