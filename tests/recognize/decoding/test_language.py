import numpy as np
import pytest
from scripted_decoder import VOCABULARY, ScriptedSession

from sottovoce.recognize.decoding.attempt import SpokenLanguage
from sottovoce.recognize.decoding.batch import find_languages
from sottovoce.recognize.decoding.stepwise import StepwiseDecoder
from sottovoce.schema import DecodeOptions


def test_the_likeliest_language_is_chosen_among_languages_only() -> None:
    session = ScriptedSession([[0, 8, 7]], [[9, 7]])
    german, english = StepwiseDecoder(session, VOCABULARY, num_windows=2).detect_languages()
    assert (german.code, english.code) == ("de", "en")
    assert german.probability == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert english.probability == pytest.approx(1 / (1 + np.exp(-9.0)))


def test_a_language_that_is_given_is_not_detected() -> None:
    options = [DecodeOptions(language="en"), DecodeOptions(language=None)]
    decoder = StepwiseDecoder(ScriptedSession([[8]], [[8]]), VOCABULARY, num_windows=2)
    given, found = find_languages(decoder, options, known=VOCABULARY.languages)
    assert given == SpokenLanguage("en")
    assert found.code == "de"


def test_the_model_does_not_run_if_every_language_is_given() -> None:
    assert find_languages(None, [DecodeOptions(language="de")], known=VOCABULARY.languages) == [SpokenLanguage("de")]


def test_the_only_language_of_a_model_is_not_detected() -> None:
    options = [DecodeOptions(language=None), DecodeOptions(language="en")]
    assert find_languages(None, options, known=["en"]) == [SpokenLanguage("en", 1.0), SpokenLanguage("en")]
