"""Find audio and texts that occur more than once, and those that are in several splits."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sottovoce.report.corpus.amounts import SPLITS, name_speakers
from sottovoce.report.corpus.contents import MAX_EXAMPLES, MAX_LISTED, Duplicates, RepeatedSound, RepeatedText
from sottovoce.schema import Split, Utterance


def find_duplicates(utterances: Sequence[Utterance], digests: Mapping[str, str]) -> Duplicates:
    """Find identical audio under several ids, and texts in several splits.

    The same audio in two splits is a leak. The same text is a leak only if the same speaker says it in both splits.
    Otherwise it is a common phrase ("yes", "thank you") and is only counted.

    Args:
        utterances: with their splits.
        digests: digests of the audio, by id. An utterance without one is compared by text only.
    """
    sounds = _repeat_sounds(utterances, digests)
    splits_of_text = _collect_splits(utterances)
    texts = _repeat_texts(utterances, {text for text, splits in splits_of_text.items() if len(splits) > 1})
    held_out = [_key(utterance) for utterance in utterances if utterance.split != "train" and utterance.text.strip()]
    return Duplicates(
        num_sounds=len(sounds),
        num_surplus=sum(sound.num_ids - 1 for sound in sounds),
        num_sounds_across_splits=sum(len(sound.splits) > 1 for sound in sounds),
        num_contradictions=sum(len(sound.texts) > 1 for sound in sounds),
        sounds=tuple(sounds[:MAX_LISTED]),
        num_texts_across_splits=len(texts),
        num_texts_leaked=sum(bool(text.speakers) for text in texts),
        texts=tuple(texts[:MAX_LISTED]),
        num_held_out=len(held_out),
        num_held_out_in_training=sum("train" in splits_of_text[text] for text in held_out),
    )


def _repeat_sounds(utterances: Sequence[Utterance], digests: Mapping[str, str]) -> list[RepeatedSound]:
    """Group utterances by their audio: across splits first, then contradictions, then the most frequent."""
    counts = Counter(digests[utterance.id] for utterance in utterances if utterance.id in digests)
    groups: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        digest = digests.get(utterance.id)
        if digest is not None and counts[digest] > 1:
            groups[digest].append(utterance)
    sounds = [
        RepeatedSound(
            num_ids=len(group),
            ids=tuple(utterance.id for utterance in group[:MAX_EXAMPLES]),
            splits=_order({utterance.split for utterance in group}),
            texts=_different_texts(group),
        )
        for group in groups.values()
    ]
    return sorted(sounds, key=lambda sound: (-len(sound.splits), -len(sound.texts), -sound.num_ids, sound.ids))


def _different_texts(group: Sequence[Utterance]) -> tuple[str, ...]:
    """Return the texts of one audio that differ in more than case and spacing; a translation is no contradiction."""
    texts: dict[tuple[str, str, str], str] = {}
    for utterance in group:
        texts.setdefault((_key(utterance), utterance.task, utterance.language), utterance.text)
    tasks = Counter((task, language) for _, task, language in texts)
    return tuple(text for (_, task, language), text in texts.items() if tasks[task, language] > 1)[:MAX_EXAMPLES]


def _collect_splits(utterances: Sequence[Utterance]) -> dict[str, frozenset[Split]]:
    """Return the splits that each text occurs in; empty texts are left out."""
    splits_of_text: dict[str, frozenset[Split]] = {}
    unions: dict[tuple[frozenset[Split], Split], frozenset[Split]] = {}  # seven shared sets serve a million texts
    for utterance in utterances:
        text = _key(utterance)
        if text:
            before = splits_of_text.get(text, frozenset())
            pair = (before, utterance.split)
            if pair not in unions:
                unions[pair] = before | {utterance.split}
            splits_of_text[text] = unions[pair]
    return splits_of_text


def _repeat_texts(utterances: Sequence[Utterance], repeated: set[str]) -> list[RepeatedText]:
    """Describe the texts in several splits: those of one speaker first, then the most frequent."""
    splits: defaultdict[str, defaultdict[str | None, set[Split]]] = defaultdict(lambda: defaultdict(set))
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for utterance, speaker in zip(utterances, name_speakers(utterances), strict=True):
        text = _key(utterance)
        if text in repeated:
            splits[text][speaker].add(utterance.split)
            counts[text] += 1
            first.setdefault(text, utterance.text)
    texts = [
        RepeatedText(
            text=first[text],
            utterances=counts[text],
            splits=_order(set().union(*speakers.values())),
            speakers=_list_leaking(speakers),
        )
        for text, speakers in splits.items()
    ]
    return sorted(texts, key=lambda text: (not text.speakers, -text.utterances, text.text))


def _list_leaking(splits_of_speaker: Mapping[str | None, set[Split]]) -> tuple[str, ...]:
    names = (name for name, splits in splits_of_speaker.items() if name is not None and len(splits) > 1)
    return tuple(sorted(names)[:MAX_LISTED])


def _key(utterance: Utterance) -> str:
    return " ".join(utterance.text.casefold().split())


def _order(splits: set[Split]) -> tuple[Split, ...]:
    return tuple(split for split in SPLITS if split in splits)
