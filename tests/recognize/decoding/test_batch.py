"""From a batch of encoded windows to results, by a scripted decoder with the tiny checkpoint's vocabulary."""

from dataclasses import replace

import numpy as np
import pytest
from scripted_decoder import ScriptedSession, in_order

from sottovoce.errors import LanguageError
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.vocabulary import Vocabulary, build_vocabulary
from sottovoce.recognize.decoding.batch import decode_batch
from sottovoce.recognize.decoding.stepwise import StepwiseDecoder
from sottovoce.schema import DecodeOptions, WindowResult

BEFORE = list(range(1_000, 1_300))


@pytest.fixture(scope="module")
def vocabulary(tiny_checkpoint) -> Vocabulary:
    checkpoint = load_checkpoint(tiny_checkpoint)
    return build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="tiny")


class RealSession(ScriptedSession):
    """Scripts of tokens of Whisper's own vocabulary; notes the prefixes it reads."""

    def start(self, prefix, positions=None):
        self.prefix = prefix
        self.step, self.rows = 0, list(range(len(self.scripts)))
        logits = np.zeros((*prefix.shape, 51_865), np.float32)
        logits[:, :, 50_362] = self.silence
        logits[:, -1] = self._logits()
        return logits if positions is None else logits[:, list(positions)]

    silence = 0.0

    def _logits(self):
        narrow = np.zeros((len(self.rows), 51_865), np.float32)
        for row, window in enumerate(self.rows):
            script = self.scripts[window]
            narrow[row, script[min(self.step, len(script) - 1)]] = 30.0
        return narrow


def decode(session, vocabulary: Vocabulary, *options: DecodeOptions) -> list[WindowResult]:
    decoder = StepwiseDecoder(session, vocabulary, num_windows=len(options))
    durations_s = [4.0] * len(options)
    return in_order(decode_batch(decoder, options, vocabulary=vocabulary, durations_s=durations_s, max_rows=16))


def spoken(vocabulary: Vocabulary, text: str) -> list[int]:
    return vocabulary.tokenizer(text, add_special_tokens=False).input_ids


def test_the_end_of_previous_text_precedes_the_prefix(vocabulary) -> None:
    prompt = spoken(vocabulary, " Dr. Meyer")
    for options, expected in (
        (DecodeOptions(), []),
        (DecodeOptions(prompt="  Dr. Meyer "), [50_361, *prompt]),
        (DecodeOptions(prompt="Dr. Meyer", previous_ids=(7, 8)), [50_361, *prompt, 7, 8]),
        (DecodeOptions(prompt="Dr. Meyer", previous_ids=tuple(BEFORE)), [50_361, *BEFORE[-223:]]),
        (DecodeOptions(prompt=" \n "), []),
    ):
        session = RealSession([[50_257]])
        decode(session, vocabulary, options)
        assert session.prefix.tolist() == [[*expected, 50_258, 50_259, 50_359, 50_363]]


def test_a_prompt_cannot_contain_special_tokens(vocabulary) -> None:
    ids = vocabulary.previous(DecodeOptions(prompt="<|endoftext|><|startoftranscript|><|de|> hello <|0.00|>"))
    assert ids[0] == 50_361
    assert max(ids[1:]) < 50_257


def test_timestamps_become_segments_and_words_after_them_are_decoded_again(vocabulary) -> None:
    said = spoken(vocabulary, " one two")
    ids = [50_364, *said, 50_414, 50_414, *said, 50_257]
    (result,) = decode(RealSession([[token] for token in ids]), vocabulary, DecodeOptions(timestamps=True))
    assert result.token_ids == tuple(ids[:-1])
    assert [(one.start_s, one.end_s, one.text) for one in result.segments] == [(0.0, 1.0, " one two")]
    assert result.heard_s == 1.0
    assert result.text == "one two one two"


def test_a_window_without_times_is_one_segment(vocabulary) -> None:
    ids = [*spoken(vocabulary, " one two"), 50_257]
    (result,) = decode(RealSession([[token] for token in ids]), vocabulary, DecodeOptions())
    assert [(one.start_s, one.end_s, one.text) for one in result.segments] == [(0.0, 4.0, " one two")]
    assert (result.heard_s, result.temperature, result.language_probability) == (None, 0.0, None)
    assert 0.0 < result.compression_ratio < 1.0


def test_tokens_of_text_come_with_their_bytes_and_log_probabilities(vocabulary) -> None:
    said = spoken(vocabulary, " é 😀")
    ids = [50_364, *said, 50_414, 50_257]
    options = DecodeOptions(timestamps=True, token_logprobs=True)
    (result,) = decode(RealSession([[token] for token in ids]), vocabulary, options)
    assert len(result.token_logprobs) == len(said)
    assert b"".join(one.utf8 for one in result.token_logprobs).decode() == " é 😀"
    assert any("\ufffd" in one.text for one in result.token_logprobs)
    assert all(-0.01 < one.logprob <= 0.0 for one in result.token_logprobs)
    assert result.segments[0].token_logprobs == result.token_logprobs
    (without,) = decode(RealSession([[token] for token in ids]), vocabulary, DecodeOptions(timestamps=True))
    assert without.token_logprobs == ()


def test_a_silent_window_has_no_text_and_says_why(vocabulary) -> None:
    said = spoken(vocabulary, " thank you")

    class Silent(RealSession):
        silence = 20.0

    class Unsure(Silent):
        def _logits(self):
            return super()._logits() / 3.0  # 10 for the script's token against 51 864 others at 0

    options = DecodeOptions(token_logprobs=True)
    (sure,) = decode(Silent([[token] for token in (*said, 50_257)]), vocabulary, options)
    assert sure.text == "thank you"
    (skipped,) = decode(Unsure([[token] for token in (*said, 50_257)]), vocabulary, options)
    assert (skipped.text, skipped.token_ids, skipped.segments, skipped.heard_s) == ("", (), (), None)
    assert (skipped.token_logprobs, skipped.compression_ratio) == ((), 0.0)
    assert skipped.no_speech_prob > 0.9
    assert skipped.avg_logprob < -1.0
    heard = replace(options, no_speech_threshold=None)
    assert decode(Unsure([[token] for token in (*said, 50_257)]), vocabulary, heard)[0].text == "thank you"


def test_a_language_that_is_not_given_is_detected_with_its_probability(vocabulary) -> None:
    options = [DecodeOptions(language=None), DecodeOptions(language="fr")]
    german = vocabulary.languages.index("de")
    token = int(vocabulary.language_ids[german])
    detected, given = decode(RealSession([[token], [50_257]], [[token], [50_257]]), vocabulary, *options)
    assert (detected.language, given.language) == ("de", "fr")
    assert detected.language_probability == pytest.approx(1.0, abs=1e-6)
    assert given.language_probability is None


def test_an_unknown_language_raises_language_error(vocabulary) -> None:
    with pytest.raises(LanguageError):
        decode(RealSession([[50_257]]), vocabulary, DecodeOptions(language="xx"))
