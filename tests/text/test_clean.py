from typing import get_args

import pytest

from sottovoce.text.clean import CleaningRule, clean_text


@pytest.mark.parametrize(
    ("rule", "text", "cleaned"),
    [
        ("unicode_nfc", "cafe\u0301", "café"),
        ("whitespace", "  so\u00a0it\u3000goes \n", "so it goes"),
        ("drop_invisible", "\ufeffpre\u00adfix\u200b \u202aname\u202c", "prefix name"),
        ("drop_invisible", "क\u094d\u200dष", "क\u094d\u200dष"),
        ("straight_quotes", "“It\u2019s fine,” she said", '"It\'s fine," she said'),
        ("straight_quotes", "«Oui»", "«Oui»"),
        ("drop_markup", "<unk> Yes [laughter], of course (noise) {cough}.", "Yes, of course."),
        ("drop_markup", "if a < b and c > d (as he said)", "if a < b and c > d (as he said)"),
        ("drop_markup", "[inaudible 0:12:34]", ""),
        ("sentence_case", "MISTER QUILTER IS THE APOSTLE", "Mister quilter is the apostle"),
        ("sentence_case", "'ÉTÉ À PARIS, 1999", "'Été à paris, 1999"),
        ("sentence_case", "Mister NASA", "Mister NASA"),
        ("sentence_case", "1999.", "1999."),
        ("sentence_case", "東京です", "東京です"),
        ("english_i", "so i said i'm here, but i", "so I said I'm here, but I"),
        ("english_i", "it is in i.e. and e-i'o", "it is in i.e. and e-i'o"),
    ],
)
def test_a_rule_does_what_its_name_says(rule: CleaningRule, text: str, cleaned: str):
    assert clean_text(text, (rule,)) == cleaned


def test_rules_apply_in_the_order_given_and_none_leaves_the_text():
    assert clean_text("YES  [NOISE] SIR", ("sentence_case", "drop_markup", "whitespace")) == "Yes sir"
    assert clean_text(" A  b ", ()) == " A  b "


@pytest.mark.parametrize("rule", get_args(CleaningRule))
def test_every_rule_keeps_plain_text_and_is_done_after_one_pass(rule: CleaningRule):
    text = "Hello, Dr. Smith: it costs 5 € (about)?"
    kept = "Hello, Dr. Smith: it costs 5 €?" if rule == "drop_markup" else text
    assert clean_text(text, (rule,)) == kept
    assert clean_text(kept, (rule,)) == kept
    assert clean_text("", (rule,)) == ""
