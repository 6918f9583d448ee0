"""What is spelled alike is equal after normalization, and what is spelled otherwise is not, in every script."""

# ruff: noqa: RUF001  # texts of many scripts

import unicodedata

import pytest

from sottovoce.text.normalize import Rules, normalize
from sottovoce.text.score import score_texts
from sottovoce.text.scoring_table import SCORING, scoring_of

SAME = [
    ("hi", "नमस्ते, दुनिया!", "नमस्ते दुनिया"),
    ("hi", "क\u093c\u0932\u092e", "\u0958\u0932\u092e"),  # nukta apart and composed
    ("hi", "क्\u200dया", "क्या"),  # the joiner chooses a shape
    ("mr", "द\u0930\u094d\u200dया", "द\u0931\u094dया"),
    ("ne", "नेपाल।", "नेपाल"),
    ("sa", "अ॒ग्निम्", "अग्निम्"),  # Vedic accent
    ("bn", "আ\u09ae\u09bf \u09ac\u09be\u0982\u09b2\u09be\u09df", "আমি বাংলা\u09af\u09bc"),
    ("bn", "\u0995\u09c7\u09be", "\u0995\u09cb"),
    ("bn", "উৎসব", "উত্\u200dসব"),
    ("bn", "র\u200d্যাব", "র\u200c্যাব"),
    ("pa", "\u0a36\u0a39\u0a3f\u0a30", "\u0a38\u0a3c\u0a39\u0a3f\u0a30"),
    ("gu", "કેમ છો?", "કેમ છો"),
    ("ta", "\u0b95\u0bc6\u0bbe", "\u0b95\u0bca"),
    ("te", "సాఫ్ట్\u200cవేర్", "సాఫ్ట్వేర్"),
    ("kn", "ರಾಜ್\u200cಕುಮಾರ್", "ರಾಜ್ಕುಮಾರ್"),
    ("ml", "അവ\u0d28\u0d4d\u200d", "അവ\u0d7b"),
    ("th", "น้ำ", "นํ้า"),
    ("th", "เเม่", "แม่"),
    ("th", "มาก ๆ ครับ", "มากๆครับ"),
    ("lo", "ສະບາຍ ດີ", "ສະບາຍດີ"),
    ("km", "ជំរាប\u200bសួរ", "ជំរាបសួរ"),
    ("my", "မင်္ဂလာပါ။", "မင်္ဂလာပါ"),
    ("my", "န\u103a\u1037", "န\u1037\u103a"),
    ("bo", "བཀྲ་ཤིས།", "བཀྲ་ཤིས"),
    ("zh", "你好，世界。", "你好世界"),
    ("zh", "我用 Python 写", "我用Python写"),
    ("ja", "ガラス", "カ\u3099ラス"),
    ("ja", "ｶﾞﾗｽ", "ガラス"),
    ("yue", "你好 嗎？", "你好嗎"),
    ("ko", "\u1112\u1161\u11ab국", "한국"),
    ("ar", "كِتَابٌ", "كتاب"),
    ("ar", "كتـــاب", "كتاب"),
    ("fa", "کار\u200cها", "کارها"),  # after a letter that joins nothing
    ("he", "שָׁלוֹם", "שלום"),
    ("yi", "\u05f2\u05b7ן", "\u05d9\u05d9\u05b7ן"),
    ("yi", "\ufb2fלע", "אָלע"),
    ("am", "ሰላም፡ለዓለም", "ሰላም ለዓለም"),
    ("ru", "за\u0301мок", "замок"),
    ("ru", "И\u0306од", "Йод"),
    ("uk", "м'ята", "м\u02bcята"),
    ("uz", "o\u2018zbek", "o\u02bbzbek"),
    ("el", "Ο\u0301ΔΟΣ", "όδος"),
    ("hy", "Ի՞նչ", "ինչ"),
    ("tr", "İstanbul", "istanbul"),
    ("vi", unicodedata.normalize("NFD", "Tiếng Việt"), "tiếng việt"),
    ("yo", unicodedata.normalize("NFD", "Ọ̀rẹ́"), "ọ̀rẹ́"),
    ("fr", unicodedata.normalize("NFD", "Où ça?"), "où ça"),
    ("de", "u\u0308ber", "Über"),
    ("en", "I've 2 \u2764\ufe0f", "I have two"),
]
"""Language, and two ways to write the same."""

DIFFERENT = [
    ("hi", "की", "का"),
    ("hi", "किताब", "कीताब"),
    ("hi", "\u092c\u095c\u093e", "\u092c\u0921\u093e"),  # nukta
    ("hi", "हँस", "हंस"),
    ("mr", "दर्या", "दर्\u200dया"),
    ("ne", "गर्यो", "गर्\u200dयो"),
    ("as", "কি", "কী"),
    ("bn", "কর", "করা"),
    ("bn", "র\u200d্যাব", "র্যাব"),
    ("pa", "ਕਿ", "ਕੀ"),
    ("gu", "કે", "કો"),
    ("ta", "கல்", "கால்"),
    ("ta", "கல", "கல்"),
    ("te", "కల", "కాల"),
    ("kn", "ಕಲ", "ಕಾಲ"),
    ("kn", "ರ\u200dಯ\u0ccd", "ರಯ"),
    ("ml", "കല", "കാല"),
    ("si", "ශ්\u200dරී", "ශ්රී"),
    ("si", "කල", "කාල"),
    ("th", "ไม่", "ไม้"),
    ("th", "มี", "มือ"),
    ("lo", "ນ້ຳ", "ນຳ"),
    ("km", "កិ", "កី"),
    ("km", "ក្រ", "ករ"),
    ("my", "ကိ", "ကီ"),
    ("my", "မာ", "မား"),
    ("bo", "བོད", "བད"),
    ("ja", "か", "が"),
    ("fa", "می\u200cروم", "میروم"),
    ("ar", "سأل", "سال"),
    ("ur", "اعلی\u0670", "اعلی"),
    ("yi", "אַ", "אָ"),
    ("ru", "мой", "мои"),
    ("el", "νόμος", "νομός"),
    ("vi", "ma", "má"),
    ("yo", "ọ̀rẹ́", "ọ̀rẹ"),
    ("ln", "mɔ́", "mɔ"),
    ("tr", "ısı", "isi"),
    ("fr", "ou", "où"),
    ("es", "ano", "año"),
    ("haw", "ko\u02bbu", "kou"),
]


@pytest.mark.parametrize(("language", "one", "other"), SAME)
def test_two_ways_to_write_the_same_are_equal(language: str, one: str, other: str) -> None:
    rules = scoring_of(language).normalizer
    assert normalize(one, rules) == normalize(other, rules)
    assert normalize(one, rules)


@pytest.mark.parametrize(("language", "one", "other"), DIFFERENT)
def test_another_spelling_stays_another(language: str, one: str, other: str) -> None:
    rules = scoring_of(language).normalizer
    assert normalize(one, rules) != normalize(other, rules)


def test_the_pairs_are_of_many_languages_and_scripts() -> None:
    pairs = [*SAME, *DIFFERENT]
    letters = {char for _, one, _ in pairs for char in one if char.isalpha()}
    scripts = {unicodedata.name(letter).split()[0] for letter in letters}
    assert len({language for language, *_ in pairs} & set(SCORING)) >= 40
    assert len(scripts - {"MODIFIER", "FULLWIDTH", "HALFWIDTH", "CJK"}) >= 20


@pytest.mark.parametrize("rules", ["marks", "pointed", "unspaced"])
@pytest.mark.parametrize(("text"), [text for _, *texts in (*SAME, *DIFFERENT) for text in texts])
def test_a_normalized_text_stays_as_it_is(text: str, rules: Rules) -> None:
    once = normalize(text, rules)
    assert normalize(once, rules) == once


@pytest.mark.parametrize(
    ("text", "num_words"),
    [("नमस्ते", 1), ("வணக்கம் எப்படி இருக்கிறீர்கள்", 3), ("വെള്ളം കുടിക്കുക", 2), ("ọ̀rẹ́ mi", 2), ("ශ්\u200dරී ලංකා", 2)],
)
def test_marks_cut_no_word(text: str, num_words: int) -> None:
    assert len(normalize(text, "marks").split()) == num_words


def test_punctuation_symbols_and_brackets_are_treated_as_by_basic() -> None:
    for text in ("Hello, world!", "aren't (they) [noise]", "5 % of €3", "a_b – c…", "x² ½ Ⅳ ﬁ"):
        assert normalize(text, "marks") == normalize(text, "basic")


def test_marks_of_symbols_and_invisible_characters_go() -> None:
    assert normalize("a\u2764\ufe0f b 1\ufe0f\u20e3 \u0301 c\u200b\u00ad\ufeff\u200ed", "marks") == "a b 1 cd"


def test_spaces_between_other_words_stay_in_languages_without_spaces() -> None:
    assert normalize("你好 hello world 世界", "unspaced") == "你好hello world世界"


def test_every_wrong_vowel_counts() -> None:
    score = score_texts(["राम की किताब"], ["राम का कीताब"], normalizer="marks")
    assert (score.wer.substitutions, score.wer.num_reference, score.cer.substitutions) == (2, 3, 2)
