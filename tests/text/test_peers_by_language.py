"""The benchmark beside peers judges each language by its own rate, against the best peer in that language."""

import pytest

from benchmarks.common import Row
from benchmarks.peers_by_language import (
    PEERS,
    Comparison,
    choose_utterances,
    compare_with_peers,
    list_scores,
    our_systems,
    score_languages,
)
from sottovoce.errors import ConfigError
from sottovoce.schema import Utterance

TORCH, FP32, INT8 = our_systems("sequential")
FASTER, FASTER_INT8, OPENAI = PEERS
SENTENCE = " ".join(["ein"] * 100)
ONE_WRONG = " ".join(["ein"] * 99 + ["nein"])


def say(language: str, text: str, number: int = 0, duration_s: float = 2.0) -> Utterance:
    return Utterance(id=f"{language}{number}", audio="nowhere.wav", duration_s=duration_s, text=text, language=language)


SAID = [say("de", SENTENCE, number) for number in range(2)] + [say("ja", "今日は晴れです。")]
RIGHT = [one.text for one in SAID]


def judge(**written: list[str]) -> tuple[list[Row], dict[str, Comparison]]:
    """Score texts that are right but where others are given."""
    systems = {"torch": TORCH, "fp32": FP32, "int8": INT8, "faster": FASTER, "faster8": FASTER_INT8, "openai": OPENAI}
    texts = {system: written.get(name, RIGHT) for name, system in systems.items()}
    scores = {system: score_languages(SAID, one, spelling={}) for system, one in texts.items()}
    compared = compare_with_peers(SAID, texts, scores, spelling={})
    return list_scores(scores), {one.language: one for one in compared}


def test_japanese_is_scored_by_characters_and_german_by_words() -> None:
    rows, compared = judge(torch=[*RIGHT[:2], "今日 は雨です"])
    assert len(rows) == 2 * 6
    torch = {row["language"]: row for row in rows if row["variant"] == "torch"}
    assert (torch["de"]["metric"], torch["de"]["num_errors"], torch["de"]["num_units"]) == ("wer", 0, 200)
    assert (torch["ja"]["metric"], torch["ja"]["num_errors"], torch["ja"]["num_units"]) == ("cer", 2, 7)
    assert torch["ja"]["low"] == torch["ja"]["high"] == torch["ja"]["rate"] == pytest.approx(2 / 7)
    assert compared["ja"].changes["torch"].difference == pytest.approx(2 / 7)
    assert (compared["de"].is_met, compared["ja"].is_met) == (True, False)


def test_half_a_point_meets_the_bar_and_more_does_not() -> None:
    half = [ONE_WRONG, *RIGHT[1:]]
    _, compared = judge(torch=half, fp32=half, int8=half)
    assert compared["de"].is_met
    _, compared = judge(int8=[ONE_WRONG, ONE_WRONG, RIGHT[2]])
    changes = compared["de"].row()["ours_minus_best_peer"]
    assert isinstance(changes, dict)
    assert {variant: change["is_met"] for variant, change in changes.items()} == {
        "torch": True,
        "fp32": True,
        "int8": False,
    }
    assert changes["int8"]["points"] == pytest.approx(1.0)
    assert not compared["de"].is_met


def test_the_best_peer_is_chosen_anew_in_each_language() -> None:
    worse = ["", "", RIGHT[2]]
    _, compared = judge(faster=worse, faster8=worse, openai=[*RIGHT[:2], "今日"])
    assert compared["de"].best_peer == OPENAI
    assert compared["ja"].best_peer == FASTER
    assert compared["de"].short_row()["best peer"] == "openai-whisper float32"


def test_two_recordings_are_too_few_to_tell_though_the_bar_is_missed() -> None:
    _, compared = judge(int8=[ONE_WRONG, ONE_WRONG, RIGHT[2]])
    assert compared["de"].short_row()["int8, points"] == "+1.0 (cannot tell)"


def test_the_shortest_recordings_of_each_language_are_chosen() -> None:
    spoken = [say("de", "ein", number, duration_s) for number, duration_s in enumerate((5.0, 3.0, 4.0))]
    spoken += [say("en", "one"), say("fr", "un")]
    chosen = choose_utterances(spoken, languages=("de", "en"), max_recordings=2)
    assert [one.id for one in chosen] == ["de1", "de2", "en0"]
    assert len(choose_utterances(spoken, languages=(), max_recordings=None)) == 5


def test_a_language_that_nobody_speaks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'xx'.*name languages of de"):
        choose_utterances([say("de", "ein")], languages=("xx",), max_recordings=None)
