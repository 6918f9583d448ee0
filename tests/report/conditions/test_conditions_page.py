import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sottovoce.report.conditions.page import (
    PAGE_FILE,
    RECORD_FILE,
    conditions_table,
    publish_conditions,
    render_page,
)
from sottovoce.report.conditions.plots import draw_condition, list_levels
from sottovoce.scores.condition_record import ConditionScore, ConditionsRecord, LevelScore
from sottovoce.text.paired import compare_counts
from sottovoce.text.score import ErrorRate

NUM_WORDS = 400


def error_rate(errors: int) -> ErrorRate:
    rate = errors / NUM_WORDS
    return ErrorRate(
        rate=rate,
        substitutions=errors - 3,
        deletions=1,
        insertions=2,
        num_reference=NUM_WORDS,
        low=0.8 * rate,
        high=1.2 * rate,
    )


def level(name: str, *errors: int) -> LevelScore:
    """The rates of models that make so many errors, spread evenly over 40 utterances of ten words."""
    rates = tuple(map(error_rate, errors))
    if len(errors) == 1:
        return LevelScore(level=name, rates=rates)
    spread = [[total // 40 + (index < total % 40) for index in range(40)] for total in errors]
    return LevelScore(level=name, rates=rates, difference=compare_counts([spread[1]], [spread[0]], [10] * 40))


def make_record(*models: str) -> ConditionsRecord:
    """A record of 40 utterances; of two models the first is better in noise and worse at speed 0.8."""
    count = len(models)
    speed = [level("0.8", *(80, 20)[:count]), level("1.25", *(30, 30)[:count])]
    noise = [level("20 dB", *(30, 80)[:count]), level("0 dB", *(100, 300)[:count])]
    return ConditionsRecord(
        models=models,
        metric="wer",
        normalizer="english",
        decoding="service: temperatures 0",
        num_utterances=40,
        audio_s=360.0,
        seed=0,
        clean=level("clean", *(20, 20)[:count]),
        conditions=(
            ConditionScore(
                name="white_noise", title="White noise", axis="signal-to-noise ratio", clean_at=0, levels=tuple(noise)
            ),
            ConditionScore(name="speed", title="Speed", axis="factor", clean_at=1, levels=tuple(speed)),
        ),
    )


TWO = make_record("runs/robust/checkpoint", "base")
ONE = make_record("base")


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(TWO)


@pytest.fixture(scope="module")
def page_of_one() -> str:
    return render_page(ONE)


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def cells(page: str, caption: str) -> list[list[str]]:
    """The rows of the table with this caption, as text."""
    table = page.split(f"<caption>{caption}</caption>")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [[re.sub("<[^>]+>", " ", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_untouched_speech_is_a_level_of_every_curve() -> None:
    noise, speed = TWO.conditions
    assert [one.level for one in list_levels(TWO, noise)] == ["clean", "20 dB", "0 dB"]
    assert [one.level for one in list_levels(TWO, speed)] == ["0.8", "clean", "1.25"]


def test_a_curve_names_its_models_levels_and_units() -> None:
    svg = draw_condition(TWO, TWO.conditions[0], ["robust", "base"])
    assert {"robust", "base", "clean", "20 dB", "0 dB", "signal-to-noise ratio", "WER (%)"} <= set(words(svg))
    assert "base" in words(draw_condition(ONE, ONE.conditions[0], ["base"]))


def test_the_same_record_draws_the_same_bytes(page: str) -> None:
    assert render_page(TWO) == page


def test_the_page_is_self_contained_and_well_formed_where_it_draws(page: str) -> None:
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<svg ") == len(TWO.conditions)
    assert "{{" not in page


def test_the_table_has_counts_intervals_and_a_verdict_for_each_level(page: str) -> None:
    header, clean, _, soft, other, *_ = cells(page, "White noise, signal-to-noise ratio")
    assert header[2:6] == ["WER", "95 % interval", "subst., delet., insert.", "of"]
    assert clean[0] == "clean"
    assert clean[-1] == "no difference shown"
    assert soft[:6] == ["20 dB", "runs/robust/checkpoint", "7.5 %", "6.0 to 9.0", "27, 1, 2", "400"]
    assert soft[-1] == "better"
    assert soft[-2].startswith("\N{MINUS SIGN}12.5")
    assert other[:3] == ["", "base", "20.0 %"]
    assert cells(page, "Speed, factor")[1][-1] == "worse"


def test_the_captions_say_where_the_first_model_is_better_or_worse(page: str, page_of_one: str) -> None:
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == ["The first model is better at 20 dB, 0 dB.", "The first model is worse at 0.8."]
    assert "<figcaption>Highest at 0 dB: 25.0 %.</figcaption>" in page_of_one
    equal = TWO.model_copy(update={"conditions": (TWO.conditions[1].model_copy(update={"levels": (TWO.clean,)}),)})
    assert "<figcaption>No difference is shown at any level.</figcaption>" in render_page(equal)


def test_the_tiles_count_the_verdicts_of_all_levels(page: str) -> None:
    assert re.search(r"<b>2 of 5</b>levels where the first is better", page)
    assert re.search(r"<b>1 of 5</b>levels where it is worse", page)


def test_a_single_model_has_no_verdicts(page_of_one: str) -> None:
    assert "verdict" not in page_of_one
    assert cells(page_of_one, "Speed, factor")[1][:3] == ["0.8", "20.0 %", "16.0 to 24.0"]


def test_names_are_escaped_and_long_ones_keep_their_end() -> None:
    page = render_page(make_record("<b>&", "/a" * 60 + "/checkpoint"))
    assert "<b>&amp;" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "…" in page
    assert "/a/checkpoint" in page


def test_what_was_left_out_is_named_with_its_reason() -> None:
    page = render_page(ONE.model_copy(update={"left_out": {"u7": "holds no samples"}, "conditions": ()}))
    assert "Left out: 1 that cannot be scored, such as <code>u7</code> (holds no samples)." in page


def test_a_record_with_clean_speech_alone_is_a_page() -> None:
    page = render_page(ONE.model_copy(update={"conditions": ()}))
    assert "No condition is scored yet." in page


def test_each_record_replaces_the_files_and_the_last_is_returned(page: str, tmp_path: Path) -> None:
    first = TWO.model_copy(update={"conditions": ()})
    assert publish_conditions([first, TWO], tmp_path) == TWO
    assert ConditionsRecord.model_validate_json((tmp_path / RECORD_FILE).read_text("utf-8")) == TWO
    assert (tmp_path / PAGE_FILE).read_text("utf-8") == page
    with pytest.raises(ValueError, match="no record"):
        publish_conditions([], tmp_path)


def test_what_was_scored_before_an_error_stays_on_disk(tmp_path: Path) -> None:
    def records():
        yield ONE
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        publish_conditions(records(), tmp_path)
    assert ConditionsRecord.model_validate_json((tmp_path / RECORD_FILE).read_text("utf-8")) == ONE


def test_the_plain_table_lists_every_level_with_its_verdict() -> None:
    lines = conditions_table(TWO).splitlines()
    assert lines[0] == "WER in percent (english), 40 utterances, 360 s"
    assert len(lines) == 2 + 5
    assert re.fullmatch(r"white_noise +20 dB +7\.50 +6\.0 - 9\.0 +20\.00 +16\.0 - 24\.0 +-12\.50 +better", lines[3])
    assert "verdict" not in conditions_table(ONE)
