"""Collect all findings about a prepared corpus and derive warnings from them; pure functions."""

from collections.abc import Iterable, Iterator, Sequence

from sottovoce.data.prepare import PreparedData
from sottovoce.report.corpus.amounts import (
    build_histogram,
    count_rejects,
    count_warnings,
    find_speakers,
    rank,
    sum_splits,
)
from sottovoce.report.corpus.characters import find_characters
from sottovoce.report.corpus.contents import Amount, Characters, Duplicates, Rates, Report, ReportWarning, Speakers
from sottovoce.report.corpus.duplicates import find_duplicates
from sottovoce.report.corpus.rates import find_rates

_NUM_NAMED = 3  # names in a sentence; the report lists more


def find_all(data: PreparedData) -> Report:
    """Collect all counts and findings. A million utterances take about a minute; no audio is read."""
    utterances = data.utterances
    splits = sum_splits(utterances)
    speakers = find_speakers(utterances)
    rates = find_rates(utterances)
    characters = find_characters(utterances)
    duplicates = find_duplicates(utterances, data.digests)
    warnings = (
        *_warn_splits(splits),
        *_warn_leakage(speakers, duplicates),
        *_warn_texts(duplicates, characters, rates),
    )
    return Report(
        corpus=data.corpus,
        num_rows=data.num_rows,
        num_utterances=len(utterances),
        num_rejects=len(data.rejects),
        reject_fraction=len(data.rejects) / data.num_rows if data.num_rows else 0.0,
        hours=sum(amount.hours for amount in splits),
        num_without_speech=sum(not utterance.text.strip() for utterance in utterances),
        seconds=data.seconds,
        warnings=warnings,
        splits=splits,
        languages=rank(utterances, lambda utterance: utterance.language),
        corpora=rank(utterances, lambda utterance: utterance.corpus),
        tasks=rank(utterances, lambda utterance: utterance.task),
        speakers=speakers,
        duration=build_histogram([utterance.duration_s for utterance in utterances], "s"),
        rates=rates,
        characters=characters,
        duplicates=duplicates,
        rejects=count_rejects(data.rejects),
        row_warnings=count_warnings(data.warnings),
    )


def _warn_splits(splits: Sequence[Amount]) -> Iterator[ReportWarning]:
    empty = [split.name for split in splits if not split.utterances]
    if len(empty) == len(splits):
        yield ReportWarning(name="no_utterances", sentence="No utterance was kept: there is nothing to train on.")
    elif empty:
        sentence = (
            f"No utterance is in {' or '.join(empty)}: give the corpus more rows or speakers, or larger fractions."
        )
        yield ReportWarning(name="empty_split", sentence=sentence)


def _warn_leakage(speakers: Speakers, duplicates: Duplicates) -> Iterator[ReportWarning]:
    if speakers.num_leaked:
        yield ReportWarning(
            name="speaker_leakage",
            sentence=f"{_count(speakers.num_leaked, 'speaker is', 'speakers are')} in training and also in "
            f"validation or test{_name((speaker.name for speaker in speakers.leaked), speakers.num_leaked)}: "
            "error rates there will be lower than for unknown speakers.",
        )
    if duplicates.num_sounds_across_splits:
        ids = (" = ".join(sound.ids[:2]) for sound in duplicates.sounds if len(sound.splits) > 1)
        yield ReportWarning(
            name="sound_leakage",
            sentence=f"{_count(duplicates.num_sounds_across_splits, 'recording is', 'recordings are')} in several "
            f"splits under different ids{_name(ids, duplicates.num_sounds_across_splits)}: "
            "keep each in one split.",
        )
    if duplicates.num_texts_leaked:
        texts = (f"“{_shorten(text.text)}”" for text in duplicates.texts if text.speakers)
        yield ReportWarning(
            name="text_leakage",
            sentence=f"{_count(duplicates.num_texts_leaked, 'text is', 'texts are')} said by the same speaker in "
            f"several splits{_name(texts, duplicates.num_texts_leaked)}.",
        )


def _warn_texts(duplicates: Duplicates, characters: Characters, rates: Rates) -> Iterator[ReportWarning]:
    if duplicates.num_contradictions:
        ids = (" = ".join(sound.ids[:2]) for sound in duplicates.sounds if len(sound.texts) > 1)
        yield ReportWarning(
            name="contradicting_texts",
            sentence=f"{_count(duplicates.num_contradictions, 'recording has', 'recordings have')} several different "
            f"texts{_name(ids, duplicates.num_contradictions)}: at most one of them can be right.",
        )
    if duplicates.num_surplus:
        yield ReportWarning(
            name="repeated_sounds",
            sentence=f"{_count(duplicates.num_surplus, 'utterance repeats', 'utterances repeat')} the sound of "
            "another one, sample for sample.",
        )
    if characters.num_damaged:
        yield ReportWarning(
            name="damaged_text",
            sentence=f"{_count(characters.num_damaged, 'utterance has', 'utterances have')} damaged or invisible "
            "characters in the text: read the corpus in its right encoding, or clean it.",
        )
    if characters.num_foreign:
        yield ReportWarning(
            name="foreign_letters",
            sentence=f"{_count(characters.num_foreign, 'utterance has', 'utterances have')} letters of a script that "
            "is rare in texts of that language: a wrong language, or look-alike letters.",
        )
    if rates.num_odd:
        yield ReportWarning(
            name="implausible_rate",
            sentence=f"{_count(rates.num_odd, 'utterance is', 'utterances are')} spoken implausibly fast or slow"
            f"{_name((odd.id for odd in rates.worst), rates.num_odd)}: the transcript is probably not its own.",
        )


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _name(names: Iterable[str], total: int) -> str:
    """Return the first few names in brackets and the number of others; an empty text without names."""
    named = [name for name, _ in zip(names, range(_NUM_NAMED), strict=False)]
    rest = [f"and {total - len(named)} more"] if total > len(named) else []
    return f" ({', '.join(named + rest)})" if named else ""


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
