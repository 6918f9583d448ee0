"""Whisper's code of a language, however a person, a corpus or a client writes the language."""

import re
from collections.abc import Mapping
from typing import Final

LANGUAGES: Final[Mapping[str, str]] = {
    "en": "english",
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "ru": "russian",
    "ko": "korean",
    "fr": "french",
    "ja": "japanese",
    "pt": "portuguese",
    "tr": "turkish",
    "pl": "polish",
    "ca": "catalan",
    "nl": "dutch",
    "ar": "arabic",
    "sv": "swedish",
    "it": "italian",
    "id": "indonesian",
    "hi": "hindi",
    "fi": "finnish",
    "vi": "vietnamese",
    "he": "hebrew",
    "uk": "ukrainian",
    "el": "greek",
    "ms": "malay",
    "cs": "czech",
    "ro": "romanian",
    "da": "danish",
    "hu": "hungarian",
    "ta": "tamil",
    "no": "norwegian",
    "th": "thai",
    "ur": "urdu",
    "hr": "croatian",
    "bg": "bulgarian",
    "lt": "lithuanian",
    "la": "latin",
    "mi": "maori",
    "ml": "malayalam",
    "cy": "welsh",
    "sk": "slovak",
    "te": "telugu",
    "fa": "persian",
    "lv": "latvian",
    "bn": "bengali",
    "sr": "serbian",
    "az": "azerbaijani",
    "sl": "slovenian",
    "kn": "kannada",
    "et": "estonian",
    "mk": "macedonian",
    "br": "breton",
    "eu": "basque",
    "is": "icelandic",
    "hy": "armenian",
    "ne": "nepali",
    "mn": "mongolian",
    "bs": "bosnian",
    "kk": "kazakh",
    "sq": "albanian",
    "sw": "swahili",
    "gl": "galician",
    "mr": "marathi",
    "pa": "punjabi",
    "si": "sinhala",
    "km": "khmer",
    "sn": "shona",
    "yo": "yoruba",
    "so": "somali",
    "af": "afrikaans",
    "oc": "occitan",
    "ka": "georgian",
    "be": "belarusian",
    "tg": "tajik",
    "sd": "sindhi",
    "gu": "gujarati",
    "am": "amharic",
    "yi": "yiddish",
    "lo": "lao",
    "uz": "uzbek",
    "fo": "faroese",
    "ht": "haitian creole",
    "ps": "pashto",
    "tk": "turkmen",
    "nn": "nynorsk",
    "mt": "maltese",
    "sa": "sanskrit",
    "lb": "luxembourgish",
    "my": "myanmar",
    "bo": "tibetan",
    "tl": "tagalog",
    "mg": "malagasy",
    "as": "assamese",
    "tt": "tatar",
    "haw": "hawaiian",
    "ln": "lingala",
    "ha": "hausa",
    "ba": "bashkir",
    "jw": "javanese",
    "su": "sundanese",
    "yue": "cantonese",
}
"""English name of each of Whisper's languages, by its code, in the order of the vocabulary: transformers' table,
repeated so that the service need not import transformers. test_languages compares them."""

WHISPER_CODES: Final[Mapping[str, str]] = {"cmn": "zh", "fil": "tl", "iw": "he", "jv": "jw", "nb": "no"}
"""Codes of Common Voice, FLEURS and browsers for which Whisper has others."""

# Besides the one English name that each code has in Whisper's table; those of openai-whisper's TO_LANGUAGE_CODE.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "burmese": "my",
    "castilian": "es",
    "filipino": "tl",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
}


def language_spellings(names: Mapping[str, str]) -> dict[str, str]:
    """Return the code of each language by its codes and its English names, all in lower case.

    Args:
        names: English name of each language that the model knows, by Whisper's code.
    """
    others = {spelling: code for spelling, code in {**WHISPER_CODES, **_OTHER_NAMES}.items() if code in names}
    return others | {name.lower(): code for code, name in names.items()} | {code: code for code in names}


def find_language(name: str, spellings: Mapping[str, str]) -> str | None:
    """Return the code of a language written as ``de``, ``de-CH``, ``de_CH`` or ``German``.

    Args:
        name: the language.
        spellings: of the languages that the model knows; see ``language_spellings``.

    Returns:
        Whisper's code, or None if the model does not know the language.
    """
    spelled = name.strip().lower()
    return spellings.get(spelled) or spellings.get(first_subtag(spelled))


def first_subtag(locale: str) -> str:
    """Return the language of a locale: ``pt`` of pt-BR, ``cmn`` of cmn_hans_cn."""
    return re.split(r"[-_]", locale.strip().lower())[0]
