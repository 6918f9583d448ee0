"""The contents of ``report.json`` and of the page.

Lists are cut at ``MAX_LISTED`` entries; the number beside a list counts all.
"""

from typing import Literal, TypeAlias

from pydantic import Field

from sottovoce.schema import Record, Split

MAX_LISTED = 100  # entries of a list in report.json; the page shows the first ten
MAX_EXAMPLES = 5  # ids or details named for one finding

RateUnit: TypeAlias = Literal["words/s", "characters/s"]
"""characters/s counts letters and digits, for languages written without spaces."""

CharacterKind: TypeAlias = Literal[
    "replacement",  # U+FFFD: bytes were decoded with the wrong encoding and lost
    "mojibake",  # UTF-8 read as Windows-1252 or Latin-1: "Ã©" for "é"
    "control",  # control characters, including line breaks and tabs, and unassigned code points
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
    """A problem that a person should look at before training on this data."""

    name: WarningName
    sentence: str


class Amount(Record):
    """Utterances and hours of one split, language, corpus or speaker."""

    name: str
    utterances: int
    hours: float


class Ranking(Record):
    """Amounts, the largest first."""

    total: int
    """Number of names."""
    biggest: tuple[Amount, ...]
    unnamed: int = 0
    """Utterances without a name."""


class Histogram(Record):
    """The distribution of values."""

    unit: str
    edges: tuple[float, ...]
    """One more than ``counts``. A bin includes its lower edge, the last one both edges."""
    counts: tuple[int, ...]
    num_above: int
    """Values above the last edge, which are not drawn."""
    low: float
    p5: float
    median: float
    mean: float
    p95: float
    high: float


class LanguageRate(Record):
    """The speaking rate of one language in the corpus, and the limits of plausible transcripts."""

    language: str
    unit: RateUnit
    utterances: int
    """Utterances with a text; an empty text has no speaking rate."""
    median: float
    slow_limit: float
    fast_limit: float


class OddRate(Record):
    """An utterance with an implausible speaking rate: its transcript probably belongs to another one."""

    id: str
    language: str
    rate: float
    unit: RateUnit
    duration_s: float
    text: str
    factor: float = Field(ge=1.0)
    """Rate over the limit: 2 is twice too fast or twice too slow."""
    is_fast: bool


class Rates(Record):
    """Speaking rates."""

    histograms: tuple[Histogram, ...]
    """One for each unit in the corpus."""
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
    """All characters that are out of place in the texts."""

    num_utterances: int
    """Utterances with at least one finding."""
    num_damaged: int
    """Those with replacement, mojibake, control, private-use or invisible characters."""
    num_foreign: int
    """Those with letters of a rare script."""
    total: int
    findings: tuple[CharacterFinding, ...]


class RepeatedSound(Record):
    """The same audio, sample for sample, under several ids."""

    num_ids: int
    ids: tuple[str, ...]
    splits: tuple[Split, ...]
    texts: tuple[str, ...]
    """Different texts: at most one of several is right."""


class RepeatedText(Record):
    """One text, compared without case and spacing, in several splits."""

    text: str
    utterances: int
    splits: tuple[Split, ...]
    speakers: tuple[str, ...]
    """Speakers who say it in more than one split."""


class Duplicates(Record):
    """Audio and texts that occur more than once."""

    num_sounds: int
    """Audio under several ids."""
    num_surplus: int
    """Utterances beyond the first of each such audio."""
    num_sounds_across_splits: int
    num_contradictions: int
    """Audio with several texts."""
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
    """Those whose text is also in training."""


class LeakedSpeaker(Record):
    """A speaker in training and also in validation or test."""

    name: str
    train: int
    validation: int
    test: int


class Speakers(Record):
    """The speakers of the corpus."""

    ranking: Ranking
    minutes: Histogram | None
    """Minutes of each speaker."""
    biggest_share: float
    """Share of the largest speaker in the hours with a known speaker, in [0, 1]."""
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
    """All counts and findings about a prepared corpus."""

    corpus: str
    num_rows: int
    num_utterances: int
    num_rejects: int
    reject_fraction: float
    """Share of rejected rows, in [0, 1]."""
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
