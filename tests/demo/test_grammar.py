import random

import pytest

from sottovoce.demo import grammar as grammar_module
from sottovoce.demo.grammar import load_grammar, vocabulary, write_sentence
from sottovoce.errors import ConfigError


def test_micros_grammar_knows_a_thousand_words() -> None:
    assert len(vocabulary(load_grammar("sentences"))) >= 1_000


def test_most_sentences_differ_from_those_of_another_seed() -> None:
    grammar = load_grammar("sentences")
    first, second = random.Random(1), random.Random(2)
    trained = {write_sentence(grammar, first) for _ in range(5_000)}
    fresh = [write_sentence(grammar, second) for _ in range(1_000)]
    assert sum(text not in trained for text in fresh) >= 850  # phrases, dates and numbers repeat


@pytest.mark.parametrize("name", ["sentences", "dictation"])
def test_a_sentence_is_fully_expanded_and_begins_with_a_capital(name: str) -> None:
    grammar, generator = load_grammar(name), random.Random(0)
    for _ in range(500):
        text = write_sentence(grammar, generator)
        assert not set("<>/") & set(text)
        assert text[0].isupper()
        assert text[-1] in ".?!"


def test_the_same_seed_writes_the_same_sentences() -> None:
    grammar = load_grammar("dictation")
    texts = [[write_sentence(grammar, random.Random(seed)) for seed in range(20)] for _ in range(2)]
    assert texts[0] == texts[1]


def test_articles_follow_the_next_word() -> None:
    assert write_sentence({"sentence": ["a/an apple and a/an pear."]}, random.Random(0)) == "An apple and a pear."


def test_an_undefined_symbol_raises_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_module.yaml, "safe_load", lambda _: {"sentence": ["<nothing>."]})
    with pytest.raises(ConfigError, match="<nothing>"):
        load_grammar("sentences")
