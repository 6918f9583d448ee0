from report_corpus import make_clean_corpus, make_utterance

from sottovoce.report.corpus.duplicates import find_duplicates


def test_clean_data_has_no_duplicates():
    utterances = make_clean_corpus()
    found = find_duplicates(utterances, {utterance.id: utterance.id for utterance in utterances})
    assert (found.sounds, found.texts, found.num_surplus, found.num_held_out) == ((), (), 0, 10)
    assert found.num_held_out_in_training == 0


def test_the_same_sound_under_several_ids_is_found_and_leaks_come_first():
    utterances = [
        make_utterance("a"),
        make_utterance("b"),
        make_utterance("c"),
        make_utterance("d", text="same sound"),
        make_utterance("e", text="Same  sound", split="test"),
        make_utterance("f"),
    ]
    digests = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "y", "f": "z"}
    found = find_duplicates(utterances, digests)
    leaked, repeated = found.sounds
    assert (leaked.ids, leaked.splits, leaked.texts) == (("d", "e"), ("train", "test"), ())
    assert (repeated.ids, repeated.num_ids, repeated.splits) == (("a", "b", "c"), 3, ("train",))
    assert (found.num_sounds, found.num_surplus, found.num_sounds_across_splits) == (2, 3, 1)
    assert found.num_contradictions == 0


def test_one_sound_with_different_texts_is_a_contradiction():
    utterances = [make_utterance("a", text="yes"), make_utterance("b", text="no")]
    found = find_duplicates(utterances, {"a": "x", "b": "x"})
    assert found.num_contradictions == 1
    assert found.sounds[0].texts == ("yes", "no")


def test_a_transcript_and_a_translation_of_one_sound_do_not_contradict_each_other():
    utterances = [
        make_utterance("a", text="ja", language="de"),
        make_utterance("b", text="yes", language="de", task="translate"),
    ]
    assert find_duplicates(utterances, {"a": "x", "b": "x"}).num_contradictions == 0


def test_a_text_across_splits_is_a_leak_only_by_the_same_speaker():
    utterances = [
        make_utterance("a", text="thank you", speaker="anna"),
        make_utterance("b", text="Thank you", speaker="ben", split="test"),
        make_utterance("c", text="good morning", speaker="anna"),
        make_utterance("d", text="good  morning", speaker="anna", split="validation"),
        make_utterance("e", text="nobody knows"),
        make_utterance("f", text="nobody knows", split="test"),
        make_utterance("g", text=""),
        make_utterance("h", text="", split="test"),
        make_utterance("i", text="twice in training", speaker="anna"),
        make_utterance("j", text="twice in training", speaker="anna"),
    ]
    found = find_duplicates(utterances, {})
    assert [(text.text, text.speakers) for text in found.texts] == [
        ("good morning", ("anna",)),
        ("nobody knows", ()),
        ("thank you", ()),
    ]
    assert found.texts[0].splits == ("train", "validation")
    assert (found.num_texts_across_splits, found.num_texts_leaked) == (3, 1)
    assert (found.num_held_out, found.num_held_out_in_training) == (3, 3)


def test_an_utterance_without_digest_is_compared_by_its_text_alone():
    found = find_duplicates([make_utterance("a"), make_utterance("b", split="test")], {})
    assert (found.num_sounds, found.num_texts_across_splits) == (0, 1)
