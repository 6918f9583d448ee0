from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spoken_numbers import result

from sottovoce.audio.decode import read_audio
from sottovoce.audio.waveform import to_pcm
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.window import WindowRequest, read_segments, unheard_rest
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, TokenLogprob, WindowSegment, WordTime

START = 100 * SAMPLING_RATE
REQUEST = WindowRequest(start=START, end=START + 10 * SAMPLING_RATE, options=DecodeOptions(timestamps=True))
QUIET = Recording(np.zeros(200 * SAMPLING_RATE, np.int16))
FULL = tuple(range(224))


def logprob(text: str) -> TokenLogprob:
    return TokenLogprob(text, -0.5, text.encode())


def test_segments_have_times_of_the_recording_and_the_scores_of_their_window():
    known = (logprob(" ab"), logprob(" c"))
    first = WindowSegment(0.5, 1.5, " ab c", (9000, 1, 2, 9050), (WordTime("ab", 0.6, 0.9, 0.7),), known)
    second = WindowSegment(1.5, 3.0, " d", (9050, 3, 9100))
    heard = result(
        (first, second), language="de", language_probability=0.8, temperature=0.4, avg_logprob=-0.3,
        no_speech_prob=0.1, compression_ratio=1.2,
    )  # fmt: skip
    one, other = read_segments(REQUEST, heard)
    assert (one.seek_s, one.start_s, one.end_s, one.text) == (100.0, 100.5, 101.5, " ab c")
    assert (one.language, one.language_probability, one.temperature) == ("de", 0.8, 0.4)
    assert (one.avg_logprob, one.no_speech_prob, one.compression_ratio) == (-0.3, 0.1, 1.2)
    assert one.words == (WordTime("ab", 100.6, 100.9, 0.7),)
    assert (one.token_logprobs, other.token_logprobs) == (known, ())
    assert other.token_ids == (9050, 3, 9100)


def test_a_window_transcribed_to_its_end_leaves_no_rest():
    assert unheard_rest(REQUEST, result(()), QUIET) == []


def test_the_unfinished_rest_begins_where_the_window_was_transcribed_to():
    (rest,) = unheard_rest(REQUEST, result((), heard_s=4.0), QUIET)
    assert rest == replace(REQUEST, start=START + 4 * SAMPLING_RATE)
    assert unheard_rest(REQUEST, result((), heard_s=9.95), QUIET) == []


@pytest.mark.parametrize("heard_s", [0.0, 0.08])
def test_a_window_whose_timestamps_do_not_advance_is_decoded_without_them(heard_s):
    (rest,) = unheard_rest(REQUEST, result((), heard_s=heard_s), QUIET)
    assert (rest.start, rest.end) == (REQUEST.start, REQUEST.end)
    assert not rest.options.timestamps


def test_a_text_that_fills_the_decoder_is_decoded_again_in_two_parts():
    one, other = unheard_rest(REQUEST, result((), token_ids=FULL), QUIET)
    assert (one.start, other.end) == (REQUEST.start, REQUEST.end)
    assert one.end == other.start
    assert 2.5 <= (one.end - one.start) / SAMPLING_RATE <= 7.5
    assert unheard_rest(one, result((), token_ids=FULL), QUIET) == []


def test_a_text_that_repeats_itself_or_a_window_too_short_is_not_divided():
    assert unheard_rest(REQUEST, result((), token_ids=FULL, compression_ratio=3.0), QUIET) == []
    short = replace(REQUEST, end=REQUEST.start + SAMPLING_RATE // 4)
    assert unheard_rest(short, result((), token_ids=FULL), QUIET) == []


def heard_until(end_s: float, *, written_s: float = 1.0):
    words = (WordTime("ab", 0.0, 0.5, 1.0), WordTime("c", 0.5, end_s, 1.0))
    return result((WindowSegment(0.0, end_s, " ab c", (9000, 1, 2, 9050), words, written_s=(0.0, written_s)),))


def test_speech_that_a_text_passes_over_at_its_end_is_decoded(shared_data: Path):
    speech = to_pcm(read_audio(shared_data / "jfk.flac"))
    recording = Recording(np.concatenate([speech[: 2 * SAMPLING_RATE], np.zeros(3 * SAMPLING_RATE, np.int16), speech]))
    request = replace(REQUEST, start=0, end=recording.num_samples)
    (rest,) = unheard_rest(request, heard_until(2.0), recording)
    assert rest.start / SAMPLING_RATE == pytest.approx(5.0, abs=0.4)
    assert rest.end == request.end
    assert unheard_rest(rest, heard_until(10.6), recording) == []
    assert unheard_rest(request, heard_until(2.0, written_s=15.6), recording) == []
    untimed = result((WindowSegment(0.0, 2.0, " ab c", (9000, 1, 2, 9050)),))
    assert unheard_rest(request, untimed, recording) == []


def test_silence_and_noise_after_a_text_are_left_alone():
    assert unheard_rest(REQUEST, heard_until(2.0), QUIET) == []
    noise = np.random.default_rng(0).normal(0.0, 500.0, 200 * SAMPLING_RATE).astype(np.int16)
    assert unheard_rest(REQUEST, heard_until(2.0), Recording(noise)) == []
