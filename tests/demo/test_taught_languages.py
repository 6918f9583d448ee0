"""The benchmark of two languages taught to ``micro``: what is spoken, and how its bars are judged."""

import csv
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from scored_utterances import make_scored

from benchmarks.taught_languages import LARGEST_CHANGE, LARGEST_LOSS, describe_language
from benchmarks.taught_sentences import TAUGHT, CorpusConfig, courses, make_corpus
from sottovoce.data.check import check_row
from sottovoce.data.corpora.read import read_corpus
from sottovoce.data.prepare import PrepareConfig, build_rules
from sottovoce.model.labels import prefix_ids, text_ids
from sottovoce.model.source import MICRO, resolve_folder
from sottovoce.model.tokenizer import read_tokenizer
from sottovoce.schema import Utterance
from sottovoce.scores.scored import ScoredUtterance

SIZES = CorpusConfig(num_train=5, num_validation=2, num_test=3, num_english=4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("taught"), SIZES)


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_corpus_has_the_sizes_asked_for_in_every_language(rows: list[dict[str, str]]) -> None:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        counts[row["language"], row["split"]] += 1
    assert counts == {
        (language, split): count
        for language in ("en", "de", "ru")
        for split, count in (("test", 3), ("validation", 2), ("train", 4 if language == "en" else 5))
    }


def test_no_sentence_and_no_voice_of_the_test_is_in_training(rows: list[dict[str, str]]) -> None:
    for column in ("text", "speaker"):
        tested = {row[column] for row in rows if row["split"] == "test"}
        assert tested
        assert not tested & {row[column] for row in rows if row["split"] != "test"}
    for course in courses().values():
        assert not set(course.training_voices) & set(course.test_voices)


def test_preparation_accepts_every_row_in_its_own_language(corpus: Path, rows: list[dict[str, str]]) -> None:
    rules = build_rules(PrepareConfig(max_duration_s=10.0), name="taught")
    outcomes = [check_row(row, rules).outcome for row in read_corpus(corpus)]
    assert [(one.language, one.text) for one in outcomes if isinstance(one, Utterance)] == [
        (row["language"], row["text"]) for row in rows
    ]


def test_the_models_tokenizer_spells_every_word_and_knows_the_languages() -> None:
    tokenizer = read_tokenizer(resolve_folder(MICRO))
    for language, course in TAUGHT.items():
        prefix_ids(tokenizer, language=language, task="transcribe", timestamps=False)  # raises for an unknown one
        texts = [text for alternatives in course.grammar.values() for text in alternatives]
        spelled = [tokenizer.decode(text_ids(tokenizer, one), clean_up_tokenization_spaces=False) for one in texts]
        assert spelled == [f" {one}" for one in texts]


@pytest.mark.parametrize(("language", "script"), [("de", "LATIN"), ("ru", "CYRILLIC")])
def test_one_language_is_in_latin_letters_and_one_is_not(language: str, script: str) -> None:
    grammar = TAUGHT[language].grammar
    letters = {letter for name in grammar if name != "sentence" for text in grammar[name] for letter in text} - {" "}
    assert {unicodedata.name(letter).split()[0] for letter in letters} == {script}


def score(language: str, reference: str, hypotheses: Sequence[str]) -> list[ScoredUtterance]:
    return [make_scored(str(number), reference, text, language=language) for number, text in enumerate(hypotheses)]


TEN = "eins zwei drei vier sechs sieben neun zehn elf zwölf"


@pytest.mark.parametrize(("num_wrong", "is_met"), [(4, True), (5, False)])
def test_a_taught_language_is_to_lose_three_fifths_of_its_errors(num_wrong: int, is_met: bool) -> None:
    words = TEN.split()
    heard = " ".join(["falsch"] * num_wrong + words[num_wrong:])
    row = describe_language("de", score("de", TEN, ["falsch " * 10]), score("de", TEN, [heard]))
    assert (row["language"], row["metric"], row["before"], row["after"]) == ("german", "wer", 1.0, num_wrong / 10)
    assert row["change_percent"] == pytest.approx(100 * (num_wrong / 10 - 1.0))
    assert row["is_met"] is is_met
    assert row["bar"] == "-60 %" == f"{100 * LARGEST_CHANGE:g} %"


@pytest.mark.parametrize(("num_wrong", "is_met"), [(1, True), (2, False)])
def test_english_may_lose_two_points(num_wrong: int, is_met: bool) -> None:
    wrong = ["blue " + "green " * 9] * num_wrong  # one word in ten
    right = ["green " * 10] * 5
    after = score("en", right[0], [*wrong, *right[num_wrong:]])
    row = describe_language("en", score("en", right[0], right), after)
    assert row["points"] == pytest.approx(2.0 * num_wrong)
    assert row["is_met"] is is_met
    assert row["bar"] == "+2 points" == f"{100 * LARGEST_LOSS:+g} points"


def test_other_languages_of_a_score_do_not_count() -> None:
    before = [*score("ru", "один два", ["wrong"]), *score("de", "eins", ["zwei"])]
    after = [*score("ru", "один два", ["один два"]), *score("de", "eins", ["drei"])]
    row = describe_language("ru", before, after)
    assert (row["before"], row["after"], row["num_units"]) == (1.0, 0.0, 2)
