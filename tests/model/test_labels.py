from pathlib import Path

import pytest
from transformers import WhisperTokenizerFast

from sottovoce.errors import LabelTooLongError, LanguageError
from sottovoce.model.labels import IGNORED, Labels, encode_example, encode_labels, prefix_ids
from sottovoce.model.source import read_generation_config
from sottovoce.model.vocabulary import build_vocabulary
from sottovoce.schema import Example, Task, Utterance

SECOND = 16_000  # samples
END, START, NO_SPEECH, NO_TIMESTAMPS, FIRST_TIMESTAMP, START_OF_PREVIOUS = (
    50_257,
    50_258,
    50_362,
    50_363,
    50_364,
    50_361,
)


@pytest.fixture(scope="module")
def tokenizer(micro_assets: Path) -> WhisperTokenizerFast:
    return WhisperTokenizerFast.from_pretrained(micro_assets)


def test_labels_are_prefix_text_and_end_token(tokenizer: WhisperTokenizerFast) -> None:
    ids = encode_labels(tokenizer, "Hello world.", language="en")
    assert ids[:4] == [50_258, 50_259, 50_359, 50_363]
    assert ids[-1] == 50_257
    assert ids.count(50_258) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == " Hello world."


def test_an_empty_text_has_no_text_tokens(tokenizer: WhisperTokenizerFast) -> None:
    assert encode_labels(tokenizer, "  ", language="de") == [50_258, 50_261, 50_359, 50_363, 50_257]


def test_with_timestamps_the_prefix_leaves_no_timestamps_out(tokenizer: WhisperTokenizerFast) -> None:
    assert prefix_ids(tokenizer, language="fr", task="translate", timestamps=True) == [50_258, 50_265, 50_358]


def test_a_label_of_448_tokens_fits_and_one_more_raises(tokenizer: WhisperTokenizerFast) -> None:
    assert len(encode_labels(tokenizer, " ".join(["the"] * 443), language="en")) == 448
    with pytest.raises(LabelTooLongError, match="449"):
        encode_labels(tokenizer, " ".join(["the"] * 444), language="en")


def test_an_unknown_language_raises_language_error(tokenizer: WhisperTokenizerFast) -> None:
    with pytest.raises(LanguageError, match="'xx'"):
        encode_labels(tokenizer, "hello", language="xx")


def example(*texts: str, previous: str | None = None, language: str = "en", task: Task = "transcribe") -> Example:
    utterances = tuple(
        Utterance(id=f"u{i}", audio="a.wav", duration_s=1.0, text=text, language=language, task=task)
        for i, text in enumerate(texts)
    )
    return Example(utterances=utterances, previous_text=previous)


def encode(tokenizer: WhisperTokenizerFast, one: Example, *, timestamps: bool = False, prompt: bool = False) -> Labels:
    labels = encode_example(
        tokenizer, one, num_samples=[SECOND] * len(one.utterances), timestamps=timestamps, previous_text=prompt
    )
    assert labels is not None
    assert len(labels.inputs) == len(labels.targets) <= 447
    return labels


def test_a_plain_example_is_its_texts_joined_and_shifted_by_one(tokenizer: WhisperTokenizerFast) -> None:
    labels = encode(tokenizer, example(" Hello world. ", "Yes."))
    ids = encode_labels(tokenizer, "Hello world. Yes.", language="en")
    assert (labels.inputs, labels.targets) == (ids[:-1], ids[1:])


def test_with_timestamps_each_utterance_stands_between_its_times(tokenizer: WhisperTokenizerFast) -> None:
    labels = encode_example(tokenizer, example("Hello.", "Yes."), num_samples=[37_450, 16_000], timestamps=True)
    assert labels is not None
    written = tokenizer.decode([*labels.inputs, labels.targets[-1]], decode_with_timestamps=True)
    assert written == (
        "<|startoftranscript|><|en|><|transcribe|><|0.00|> Hello.<|2.34|><|2.34|> Yes.<|3.34|><|endoftext|>"
    )
    assert labels.targets[:-1] == labels.inputs[1:]


def test_no_time_is_beyond_thirty_seconds(tokenizer: WhisperTokenizerFast) -> None:
    labels = encode_example(tokenizer, example("Hello."), num_samples=[30 * SECOND + 400], timestamps=True)
    assert labels is not None
    assert max(labels.inputs) == FIRST_TIMESTAMP + 1_500


def test_an_utterance_without_samples_or_without_words_leaves_the_others_their_times(
    tokenizer: WhisperTokenizerFast,
) -> None:
    pack = example("one", "lost", "", "two")
    labels = encode_example(tokenizer, pack, num_samples=[SECOND, 0, SECOND, SECOND], timestamps=True)
    assert labels is not None
    assert (
        tokenizer.decode(labels.inputs[3:], decode_with_timestamps=True) == "<|0.00|> one<|1.00|><|2.00|> two<|3.00|>"
    )


def test_an_example_without_any_samples_has_no_labels(tokenizer: WhisperTokenizerFast) -> None:
    assert encode_example(tokenizer, example("one", "two"), num_samples=[0, 0]) is None


def test_a_prompt_stands_first_and_no_loss_looks_at_it_or_at_the_start_token(tokenizer: WhisperTokenizerFast) -> None:
    labels = encode(tokenizer, example("Yes.", previous="Do you agree?"), prompt=True)
    start = labels.inputs.index(START)
    assert labels.inputs[0] == START_OF_PREVIOUS
    assert tokenizer.decode(labels.inputs[1:start]) == " Do you agree?"
    assert labels.targets[:start] == [IGNORED] * start
    assert START not in labels.targets
    plain = encode(tokenizer, example("Yes."))
    assert (labels.inputs[start:], labels.targets[start:]) == (plain.inputs, plain.targets)


def test_a_long_previous_text_keeps_its_last_223_tokens(tokenizer: WhisperTokenizerFast) -> None:
    labels = encode(tokenizer, example("Yes.", previous=" ".join(["the"] * 400) + " end"), prompt=True)
    assert labels.inputs.index(START) == 224
    assert tokenizer.decode(labels.inputs[221:224]) == " the the end"


def test_a_prompt_shrinks_to_the_room_the_transcript_leaves(tokenizer: WhisperTokenizerFast) -> None:
    long = " ".join(["the"] * 400)
    labels = encode(tokenizer, example(long, previous=long), prompt=True)
    assert len(labels.inputs) == 447
    assert labels.inputs.index(START) == 448 - 405
    full = encode(tokenizer, example(" ".join(["the"] * 443), previous="before"), prompt=True)
    assert full.inputs[0] == START


def test_nothing_is_prompted_where_nothing_is_known_or_asked_for(tokenizer: WhisperTokenizerFast) -> None:
    for previous, prompt in ((None, True), ("  ", True), ("before", False)):
        assert encode(tokenizer, example("Yes.", previous=previous), prompt=prompt).inputs[0] == START


def test_timestamps_go_where_they_do_not_fit(tokenizer: WhisperTokenizerFast) -> None:
    fits, full = " ".join(["the"] * 442), " ".join(["the"] * 443)
    assert max(encode(tokenizer, example(fits), timestamps=True).inputs) >= FIRST_TIMESTAMP
    labels = encode(tokenizer, example(full), timestamps=True)
    assert labels.inputs[3] == NO_TIMESTAMPS
    assert len(labels.inputs) == 447


def test_texts_that_do_not_fit_alone_raise(tokenizer: WhisperTokenizerFast) -> None:
    half = " ".join(["the"] * 230)
    with pytest.raises(LabelTooLongError, match="465"):
        encode(tokenizer, example(half, half, previous="before"), timestamps=True, prompt=True)


@pytest.mark.parametrize("timestamps", [False, True])
def test_silence_teaches_no_speech_at_the_start_and_an_empty_transcript(
    tokenizer: WhisperTokenizerFast, timestamps: bool
) -> None:
    labels = encode(tokenizer, example(" ", previous="before"), timestamps=timestamps, prompt=True)
    start = labels.inputs.index(START)
    prefix = [START, 50_259, 50_359, *([] if timestamps else [NO_TIMESTAMPS])]
    assert labels.inputs[start:] == prefix
    assert labels.targets[start:] == [NO_SPEECH, *[IGNORED] * (len(prefix) - 2), END]
    assert labels.targets[:start] == [IGNORED] * start
    assert start == 2


def test_the_no_speech_token_is_the_one_recognizers_read(tokenizer: WhisperTokenizerFast, micro_assets: Path) -> None:
    vocabulary = build_vocabulary(tokenizer, read_generation_config(micro_assets), source="micro")
    assert (vocabulary.no_speech_id, vocabulary.kinds.timestamps_from) == (NO_SPEECH, FIRST_TIMESTAMP)


def test_language_and_task_are_the_examples_own(tokenizer: WhisperTokenizerFast) -> None:
    for timestamps in (False, True):
        labels = encode(tokenizer, example("Hello.", language="de", task="translate"), timestamps=timestamps)
        assert labels.inputs[:3] == [START, 50_261, 50_358]
    with pytest.raises(LanguageError, match="'xx'"):
        encode(tokenizer, example("Hello.", language="xx"))
