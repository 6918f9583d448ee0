import pytest
from report_corpus import make_clean_corpus, make_utterance

from sottovoce.report.corpus.rates import UNSPACED_LANGUAGES, find_rates
from sottovoce.text.languages import LANGUAGES


def test_clean_speech_has_no_odd_rates():
    rates = find_rates(make_clean_corpus())
    assert (rates.num_odd, rates.worst) == (0, ())
    (histogram,) = rates.histograms
    assert (histogram.unit, sum(histogram.counts)) == ("words/s", 30)


def test_a_transcript_of_something_longer_is_found_and_the_worst_comes_first():
    utterances = [
        *make_clean_corpus(),
        make_utterance("too much", text="word " * 60, duration_s=3.0),
        make_utterance("far too much", text="word " * 90, duration_s=3.0),
        make_utterance("too little", text="word", duration_s=20.0),
    ]
    rates = find_rates(utterances)
    assert [odd.id for odd in rates.worst] == ["too little", "far too much", "too much"]
    assert [odd.is_fast for odd in rates.worst] == [False, True, True]
    assert rates.worst[1].rate == pytest.approx(30.0)
    assert rates.worst[1].factor == pytest.approx(30.0 / 7.0)
    assert rates.num_odd == 3


@pytest.mark.parametrize(("text", "duration_s", "num_odd"), [("no", 4.1, 0), ("eight", 0.14, 0), ("no", 20.0, 1)])
def test_one_right_word_in_a_short_recording_is_plausible(text: str, duration_s: float, num_odd: int):
    utterances = [*make_clean_corpus(), make_utterance("one word", text=text, duration_s=duration_s)]
    assert find_rates(utterances).num_odd == num_odd


def test_a_sentence_for_a_word_is_implausible():
    utterances = [*make_clean_corpus(), make_utterance("sentence", text="what joy there is in living", duration_s=0.4)]
    assert [odd.id for odd in find_rates(utterances).worst] == ["sentence"]


def test_characters_are_counted_in_languages_without_spaces():
    rates = find_rates([make_utterance("a", language="zh", text="今天 天气 很好。", duration_s=2.0)])
    (language,) = rates.languages
    assert (language.unit, language.median) == ("characters/s", pytest.approx(3.0))


def test_the_languages_without_spaces_are_whispers():
    assert set(LANGUAGES) >= UNSPACED_LANGUAGES


def test_a_language_of_short_words_has_a_higher_limit():
    syllables = [make_utterance(f"{i}", language="vi", text="một " * 10, duration_s=2.0) for i in range(20)]
    fast = make_utterance("fast", language="vi", text="một " * 20, duration_s=2.0)
    assert find_rates([*syllables, fast]).num_odd == 0
    assert find_rates([fast.model_copy(update={"language": "en"}), *make_clean_corpus()]).num_odd == 1


def test_silence_and_translations_have_no_rate():
    utterances = [
        make_utterance("silence", text=" "),
        make_utterance("translation", text="word " * 99, language="de", task="translate"),
    ]
    rates = find_rates(utterances)
    assert (rates.languages, rates.histograms, rates.num_odd) == ((), (), 0)
