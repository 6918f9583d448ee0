"""The report's figures: what ``report.json`` holds and the page shows.

Lists are capped at ``MAX_LISTED``; the number beside a list counts everything.
"""

from typing import Literal, TypeAlias

from pydantic import Field

from sottovoce.schema import Record, Split

MAX_LISTED = 100  # entries of a list in report.json; the page shows the first ten of them
MAX_EXAMPLES = 5  # ids or details named for one finding

RateUnit: TypeAlias = Literal["words/s", "characters/s"]
"""characters/s, counting letters and digits, where a language is written without spaces."""

CharacterKind: TypeAlias = Literal[
    "replacement",  # U+FFFD: somebody decoded bytes with the wrong encoding and lost them
    "mojibake",  # UTF-8 read as Windows-1252 or Latin-1: "Ã©" for "é"
    "control",  # control characters, line breaks and tabs among them, and code points that are no characters
    "private_use",
    "invisible",  # zero-width and formatting characters, except the joiners that scripts need
    "rare_script",  # letters of a script that is rare in the language's texts
    "unusual_symbol",  # emoji, mark-up such as < > [ ] _, box drawing
]

WarningName: TypeAlias = Literal[
    "no_utterances",
    "empty_split",
    "speaker_leakage",
    "sound_leakage",
    "text_leakage",
    "contradicting_texts",
    "repeated_sounds",
    "damaged_text",
    "foreign_letters",
    "implausible_rate",
]


class ReportWarning(Record):
    """Something a person should look at before training on this data."""

    name: WarningName
    sentence: str


class Amount(Record):
    """How much of the corpus bears one name: that of a split, a language, a corpus or a speaker."""

    name: str
    utterances: int
    hours: float


class Ranking(Record):
    """Amounts, the biggest first."""

    total: int
    """How many names there are."""
    biggest: tuple[Amount, ...]
    unnamed: int = 0
    """Utterances that bear no name."""


class Histogram(Record):
    """How values are distributed."""

    unit: str
    edges: tuple[float, ...]
    """One more than counts; each bin holds its lower edge, and the last one both."""
    counts: tuple[int, ...]
    num_above: int
    """Values above the last edge: too far out to be drawn."""
    low: float
    p5: float
    median: float
    mean: float
    p95: float
    high: float


class LanguageRate(Record):
    """How fast one language is spoken here, and beyond which limits a transcript is not believed."""

    language: str
    unit: RateUnit
    utterances: int
    """With a text: an empty one has no speaking rate."""
    median: float
    slow_limit: float
    fast_limit: float


class OddRate(Record):
    """An utterance spoken implausibly fast or slow: its transcript is probably not its own."""

    id: str
    language: str
    rate: float
    unit: RateUnit
    duration_s: float
    text: str
    factor: float = Field(ge=1.0)
    """How far beyond the limit: 2 is twice too fast, or twice too slow."""
    is_fast: bool


class Rates(Record):
    """Speaking rates."""

    histograms: tuple[Histogram, ...]
    """One for each unit met."""
    languages: tuple[LanguageRate, ...]
    num_odd: int
    worst: tuple[OddRate, ...]


class CharacterFinding(Record):
    """Characters that are out of place in the texts of one language."""

    kind: CharacterKind
    language: str
    what: str
    """The character with its code point and name, the sequence, or the script's name and its letters."""
    occurrences: int
    utterances: int
    examples: tuple[str, ...]
    """Ids."""


class Characters(Record):
    """Everything out of place in the texts."""

    num_utterances: int
    """Utterances with at least one finding."""
    num_damaged: int
    """Those among them with replacement, mojibake, control, private-use or invisible characters."""
    num_foreign: int
    """Those among them with letters of a rare script."""
    total: int
    findings: tuple[CharacterFinding, ...]


class RepeatedSound(Record):
    """One sound, sample for sample, under several ids."""

    num_ids: int
    ids: tuple[str, ...]
    splits: tuple[Split, ...]
    texts: tuple[str, ...]
    """Different ones: of several at most one is right."""


class RepeatedText(Record):
    """One text, compared without case and spacing, in several splits."""

    text: str
    utterances: int
    splits: tuple[Split, ...]
    speakers: tuple[str, ...]
    """Those who say it in more than one split."""


class Duplicates(Record):
    """What occurs more than once."""

    num_sounds: int
    """Sounds under several ids."""
    num_surplus: int
    """Utterances beyond the first of each such sound."""
    num_sounds_across_splits: int
    num_contradictions: int
    """Sounds with several texts."""
    sounds: tuple[RepeatedSound, ...]
    """Across splits first, then contradictions."""
    num_texts_across_splits: int
    num_texts_leaked: int
    """Texts that one speaker says in more than one split."""
    texts: tuple[RepeatedText, ...]
    """Leaked ones first."""
    num_held_out: int
    """Validation and test utterances with a text."""
    num_held_out_in_training: int
    """Those whose text training has too."""


class LeakedSpeaker(Record):
    """A speaker heard in training and again where the model is measured."""

    name: str
    train: int
    validation: int
    test: int


class Speakers(Record):
    """Who is heard."""

    ranking: Ranking
    minutes: Histogram | None
    """Minutes of each speaker."""
    biggest_share: float
    """Part of the hours with a known speaker that the biggest one has, in [0, 1]."""
    num_leaked: int
    leaked: tuple[LeakedSpeaker, ...]


class FaultExample(Record):
    """One row with a fault."""

    id: str
    detail: str


class Fault(Record):
    """A reason for rejects, or a kind of warning."""

    name: str
    rows: int
    examples: tuple[FaultExample, ...]


class Report(Record):
    """Everything countable about a prepared corpus."""

    corpus: str
    num_rows: int
    num_utterances: int
    num_rejects: int
    reject_fraction: float
    """Rejects among the rows, in [0, 1]."""
    hours: float
    num_without_speech: int
    """Utterances whose text is empty."""
    seconds: float
    """Wall time of the preparation."""
    warnings: tuple[ReportWarning, ...]
    splits: tuple[Amount, ...]
    languages: Ranking
    corpora: Ranking
    tasks: Ranking
    speakers: Speakers
    duration: Histogram | None
    """Seconds of each utterance."""
    rates: Rates
    characters: Characters
    duplicates: Duplicates
    rejects: tuple[Fault, ...]
    row_warnings: tuple[Fault, ...]
