"""Generate sentences from a small context-free grammar, reproducibly for a seed."""

import random
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

import yaml

from sottovoce.errors import ConfigError

Grammar = Mapping[str, Sequence[str]]

_SYMBOL = re.compile(r"<([a-z_]+)>")
_ARTICLE = re.compile(r"a/an (\w)")
_WORD = re.compile(r"[A-Za-z']+")


def load_grammar(name: str) -> Grammar:
    """Read one of the package's grammars, ``demo/assets/<name>.yaml``.

    Raises:
        ConfigError: a symbol is used but not defined.
    """
    grammar: Grammar = yaml.safe_load((files("sottovoce.demo") / "assets" / f"{name}.yaml").read_text(encoding="utf-8"))
    for symbol, alternatives in grammar.items():
        for used in _SYMBOL.findall(" ".join(alternatives)):
            if used not in grammar:
                raise ConfigError(f"grammar {name}: <{used}> in {symbol!r} is not defined")
    return grammar


def write_sentence(grammar: Grammar, generator: random.Random, *, symbol: str = "sentence") -> str:
    """Expand a symbol to text, choosing a or an for articles; a sentence starts with a capital letter."""
    text = f"<{symbol}>"
    while match := _SYMBOL.search(text):
        text = text[: match.start()] + generator.choice(grammar[match[1]]) + text[match.end() :]
    text = _ARTICLE.sub(lambda match: ("an " if match[1] in "aeiou" else "a ") + match[1], text)
    return text[0].upper() + text[1:] if text[-1] in ".?!" else text


def vocabulary(grammar: Grammar) -> set[str]:
    """Return every word that the grammar can generate, in lower case."""
    text = _SYMBOL.sub(" ", " ".join(alternative for options in grammar.values() for alternative in options))
    return {word.lower() for word in _WORD.findall(text.replace("a/an", "a an"))}
