import shutil
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest

from sottovoce.demo.speech import Voice, speak, speak_words
from sottovoce.errors import CheckpointError, WordTimesUnavailableError
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.labels import TokenKinds
from sottovoce.model.variants import ALIGNMENT_SCORES, onnx_path
from sottovoce.model.vocabulary import Vocabulary, build_vocabulary
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, TokenLogprob, WindowResult, WindowSegment
from sottovoce.words.word_times import AttentionTimer, time_result

TEXT = "The doctor opened the small window."
TIMED = DecodeOptions(word_timestamps=True)
TOLERANCE_S = 0.02  # one position of the encoder: two implementations of one model in float32
MAX_MEDIAN_ERROR_S = 0.1  # of six starts and ends; over hundreds it is 0.02 s


@pytest.fixture(scope="module")
def micro(micro_assets) -> Recognizer:
    return load_recognizer(micro_assets)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.1, 0.1, 60_000).astype(np.float32)


def assert_in_order(result: WindowResult, *, duration_s: float) -> None:
    """Words never go back, and stay within their segment and the window."""
    assert [word for segment in result.segments for word in segment.words] == list(result.words)
    times = [at_s for word in result.words for at_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert all(0.0 <= at_s <= duration_s for at_s in times)
    ends = [at_s for segment in result.segments for at_s in (segment.start_s, segment.end_s)]
    assert ends == sorted(ends)
    for segment in result.segments:
        assert all(segment.start_s <= word.start_s <= word.end_s <= segment.end_s for word in segment.words)
        assert "".join(word.text for word in segment.words).replace(" ", "") == "".join(segment.text.split())


def largest_difference_s(results: Sequence[WindowResult], expected: Sequence[WindowResult]) -> float:
    """Compare the times of the same words."""
    largest = 0.0
    for result, other in zip(results, expected, strict=True):
        assert [word.text for word in result.words] == [word.text for word in other.words]
        for mine, theirs in zip(result.words, other.words, strict=True):
            largest = max(largest, abs(mine.start_s - theirs.start_s), abs(mine.end_s - theirs.end_s))
    return largest


def test_words_of_a_sentence_come_with_their_times(micro):
    waveform, spoken = speak_words(TEXT, Voice(name="en-us", words_per_minute=150))
    result = micro.recognize([waveform], [TIMED])[0]
    assert result.text == TEXT
    assert [word.text for word in result.words] == TEXT.split() == [word.text for word in spoken]
    pairs = list(zip(result.words, spoken, strict=True))
    errors = [(word.start_s - true.start_s, word.end_s - true.end_s) for word, true in pairs]
    assert np.median(np.abs(errors)) <= MAX_MEDIAN_ERROR_S
    assert all(0.2 < word.probability <= 1.0 for word in result.words)


def test_each_window_of_a_batch_has_its_own_words_or_none(micro):
    short, long = (speak(text, Voice(name="en-us")) for text in ("One two three.", TEXT))
    options = [TIMED, DecodeOptions(), replace(TIMED, timestamps=True), replace(TIMED, language=None), TIMED]
    windows = [long, long, short, short, long[:8_000]]
    together = micro.recognize(windows, options)
    alone = [micro.recognize([window], [option])[0] for window, option in zip(windows, options, strict=True)]
    assert [len(result.words) > 0 for result in together] == [True, False, True, True, True]
    for result, single in zip(together, alone, strict=True):
        assert [word.text for word in result.words] == [word.text for word in single.words]
        for word, other in zip(result.words, single.words, strict=True):
            assert word.start_s == pytest.approx(other.start_s, abs=0.02)


def test_a_transcript_that_fills_the_decoder_is_timed_as_far_as_it_fits(tiny_checkpoint, noise):
    result = load_recognizer(tiny_checkpoint).recognize([noise], [replace(TIMED, max_new_tokens=444)])[0]
    assert len(result.token_ids) == 444
    times = [at_s for word in result.words for at_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[-1] <= len(noise) / 16_000


class LookingOn:
    """A decoder that looks at one position of the sound after the other, a token each."""

    def attend(self, row: int, token_ids: list[int], kinds: TokenKinds) -> tuple[np.ndarray, np.ndarray]:
        return 9.0 * np.eye(len(token_ids), 100, dtype=np.float32)[None], np.full(len(token_ids) - 1, 0.5, np.float32)


def looking_on(vocabulary: Vocabulary) -> AttentionTimer:
    return AttentionTimer(LookingOn(), kinds=vocabulary.kinds)


@pytest.mark.parametrize(
    ("task", "words"), [("translate", "an unutterable word."), ("transcribe", "an un utter able word.")]
)
def test_words_are_those_of_the_texts_language_and_the_times_written_before_stand_beside_theirs(
    tiny_checkpoint, noise, task, words
):
    checkpoint = load_checkpoint(tiny_checkpoint)
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")
    ids = tuple(vocabulary.tokenizer(" an unutterable word.", add_special_tokens=False).input_ids)
    segment = WindowSegment(0.0, 3.75, vocabulary.raw_text(ids), ids)
    written = WindowResult(
        text="", token_ids=ids, language="ja", avg_logprob=0.0, no_speech_prob=0.0, segments=(segment,)
    )
    timed = time_result(
        looking_on(vocabulary), 0, written, replace(TIMED, task=task), waveform=noise, vocabulary=vocabulary
    )
    assert [word.text for word in timed.words] == words.split()
    (fitted,) = timed.segments
    assert (fitted.start_s, fitted.end_s) == (timed.words[0].start_s, timed.words[-1].end_s) != (0.0, 3.75)
    assert fitted.written_s == (0.0, 3.75)


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", [" How many?", " It costs 3.5 dollars.", ' She said "yes."', " Dr"]),
        ("en", [" no mark at all"]),
        ("ja", ["\u5929\u6c17\u3002", "\u300c\u306f\u3044\u3002\u300d", "\u305d\u3046"]),
    ],
)
def test_what_was_written_without_times_is_divided_into_sentences(tiny_checkpoint, noise, language, sentences):
    checkpoint = load_checkpoint(tiny_checkpoint)
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")
    ids = tuple(vocabulary.tokenizer("".join(sentences), add_special_tokens=False).input_ids)
    logprobs = tuple(TokenLogprob(text="", logprob=-float(index), utf8=b"") for index in range(len(ids)))
    segment = WindowSegment(0.0, 3.75, "".join(sentences), ids, token_logprobs=logprobs)
    written = WindowResult(
        text="", token_ids=ids, language=language, avg_logprob=0.0, no_speech_prob=0.0, segments=(segment,)
    )
    timed = time_result(looking_on(vocabulary), 0, written, TIMED, waveform=noise, vocabulary=vocabulary)
    assert [one.text for one in timed.segments] == sentences
    assert tuple(token for one in timed.segments for token in one.token_ids) == ids
    assert tuple(known for one in timed.segments for known in one.token_logprobs) == logprobs
    assert all(len(one.token_ids) == len(one.token_logprobs) for one in timed.segments)
    assert_in_order(timed, duration_s=3.75)
    whole = time_result(
        looking_on(vocabulary), 0, written, replace(TIMED, timestamps=True), waveform=noise, vocabulary=vocabulary
    )
    assert [one.text for one in whole.segments] == ["".join(sentences)]


@pytest.mark.parametrize("window", [np.zeros(0, np.float32), np.zeros(16_000, np.float32)])
def test_a_window_without_speech_is_no_error(micro, window):
    for word in micro.recognize([window], [TIMED])[0].words:
        assert 0.0 <= word.start_s <= word.end_s <= len(window) / 16_000


def test_no_tokens_are_no_words(micro, noise):
    assert micro.recognize([noise], [replace(TIMED, max_new_tokens=0)])[0].words == ()


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_an_exported_variant_has_the_words_of_torch(tiny_checkpoint, tiny_export, speech_like, variant):
    """The tiny model hears nothing in particular, so in int8 the words are others and only their order is looked at."""
    options = [replace(TIMED, max_new_tokens=12, timestamps=index % 2 == 0) for index in range(len(speech_like))]
    results = load_recognizer(tiny_export, variant=variant).recognize(speech_like, options)
    for waveform, result in zip(speech_like, results, strict=True):
        assert_in_order(result, duration_s=len(waveform) / 16_000)
    if variant == "fp32":
        expected = load_recognizer(tiny_checkpoint).recognize(speech_like, options)
        assert largest_difference_s(results, expected) <= TOLERANCE_S


def test_an_export_without_attention_names_the_remedy(tiny_export, noise, tmp_path):
    older = tmp_path / "fp32"
    shutil.copytree(tiny_export / "fp32", older)
    path = onnx_path(older, "decoder_model_merged", "fp32")
    model = onnx.load(path)
    model.graph.output.remove(next(output for output in model.graph.output if output.name == ALIGNMENT_SCORES))
    onnx.save(model, path)
    recognizer = load_recognizer(older, variant="fp32")
    assert recognizer.recognize([noise], [DecodeOptions(max_new_tokens=3)])[0].token_ids
    with pytest.raises(WordTimesUnavailableError, match=r"onnx-fp32.*export the checkpoint again.*variant torch"):
        recognizer.recognize([noise], [replace(TIMED, max_new_tokens=3)])


def test_heads_the_decoder_lacks_are_named_when_words_are_asked_for(tiny_checkpoint, noise):
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.model.generation_config.alignment_heads = [[3, 0]]
    recognizer = TorchRecognizer(checkpoint)
    assert not recognizer.recognize([noise], [DecodeOptions(max_new_tokens=3)])[0].words
    with pytest.raises(CheckpointError, match="alignment heads"):
        recognizer.recognize([noise], [replace(TIMED, max_new_tokens=3)])
