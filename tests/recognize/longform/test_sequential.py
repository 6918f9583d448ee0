from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from spoken_numbers import (
    BusyListener,
    Listener,
    SpokenNumbers,
    StuckListener,
    TimingListener,
    WordListener,
    result,
    say,
)

from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import join_segments
from sottovoce.recognize.longform.sequential import SequentialReader, SpeechDetection
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, WindowSegment

WINDOW_S = 5.0
TIMED = DecodeOptions(timestamps=True)


def reader_of(recording: Recording, options: DecodeOptions = TIMED, **settings) -> SequentialReader:
    window = int(WINDOW_S * SAMPLING_RATE)
    defaults = {"window_samples": window, "shortest_samples": window // 2, "follow_text": False, "end_in_pauses": False}
    return SequentialReader(recording, options, **defaults | settings)


def read(reader: SequentialReader, listener, *, most_windows: int = 500) -> list:
    """Drive a reader to its end."""
    segments = []
    while (request := reader.next_window()) is not None:
        assert len(listener.requests) < most_windows
        assert reader.next_window() is None  # one at a time
        assert 0 < request.end - request.start <= WINDOW_S * SAMPLING_RATE
        segments += reader.take(request, listener.hear(request))
    return segments


@pytest.mark.parametrize("end_in_pauses", [False, True])
@pytest.mark.parametrize("listener_class", [Listener, WordListener, TimingListener, StuckListener, BusyListener])
@pytest.mark.parametrize("seed", range(8))
def test_every_word_is_transcribed_once_in_order_and_whole(seed, listener_class, end_in_pauses):
    spoken = say(60, seed=seed)
    listener = listener_class(spoken)
    segments = read(reader_of(spoken.recording, end_in_pauses=end_in_pauses), listener)
    assert join_segments(segments) == spoken.text
    assert all(one.start_s <= one.end_s for one in segments)
    assert all(one.end_s <= other.start_s + 1e-6 for one, other in pairwise(segments))
    assert segments[-1].end_s <= spoken.recording.duration_s + 1e-6


def test_a_window_begins_where_the_last_one_was_transcribed_to():
    spoken = say(30, seed=1)
    listener = TimingListener(spoken)
    segments = read(reader_of(spoken.recording), listener)
    first, second = listener.requests[:2]
    assert first.end == WINDOW_S * SAMPLING_RATE
    assert second.start_s == pytest.approx([one for one in segments if one.seek_s == 0.0][-1].end_s)


def test_segment_times_are_the_words_own_at_the_end_of_a_long_recording():
    spoken = say(800, seed=3)
    segments = read(reader_of(spoken.recording), TimingListener(spoken), most_windows=10_000)
    assert spoken.recording.duration_s > 600.0
    for segment, (start, end) in zip(segments[-20:], spoken.spans[-20:], strict=True):
        assert segment.start_s == pytest.approx(start / SAMPLING_RATE, abs=1e-3)
        assert segment.end_s == pytest.approx(end / SAMPLING_RATE, abs=1e-3)


@pytest.mark.parametrize("listener_class", [Listener, WordListener])
def test_a_model_without_timestamps_is_decoded_again_once_and_then_gets_windows_that_end_in_pauses(listener_class):
    spoken = say(40, seed=2)
    listener = listener_class(spoken)
    read(reader_of(spoken.recording), listener)
    starts = [request.start for request in listener.requests]
    assert len(starts) == len(set(starts)) + 1
    assert starts[:2] == [0, 0]


@pytest.mark.parametrize("heard_s", [0.0, 0.05, 0.3, 4.9, None])
def test_reading_ends_at_any_timestamps(heard_s):
    spoken = say(40, seed=4)

    class Stubborn(Listener):
        def hear(self, request):
            self.requests.append(request)
            segment = WindowSegment(0.0, 0.2, " x", (1,))
            return result((segment,), heard_s=heard_s if request.options.timestamps else None)

    listener = Stubborn(spoken)
    read(reader_of(spoken.recording), listener, most_windows=2_000)
    assert 0 < len(listener.requests) <= 2_000


class InterruptedRecording(Recording):
    """Calls back wherever a pause is looked for, as another thread might call then."""

    interrupt = staticmethod(lambda: None)

    def find_pause(self, start, end):
        self.interrupt()
        return super().find_pause(start, end)


@pytest.mark.parametrize("seed", range(3))
def test_no_window_is_returned_to_another_thread_during_take(seed):
    spoken = say(40, seed=seed)
    recording = InterruptedRecording(spoken.recording.samples)
    reader, listener, given_meanwhile = reader_of(recording), Listener(spoken), []
    segments = []
    while (request := reader.next_window()) is not None:
        recording.interrupt = lambda: given_meanwhile.append(reader.next_window())
        segments += reader.take(request, listener.hear(request))
        del recording.interrupt
    assert join_segments(segments) == spoken.text
    assert given_meanwhile
    assert set(given_meanwhile) == {None}


class VoicelessRecording(Recording):
    """Sound in which nobody speaks."""

    num_stretches = 0

    def is_silent(self, start, end):
        self.num_stretches += 1
        assert self.num_stretches < 1_000
        return False

    def find_speech(self, start, end, *, threshold, min_silence_s):
        return iter(())


@pytest.mark.parametrize("end_in_pauses", [False, True])
@pytest.mark.parametrize("window_s", [0.1, 0.25, 0.5, 1.0, 5.0])
def test_windows_without_speech_are_skipped_however_short_they_are(window_s, end_in_pauses):
    recording = VoicelessRecording(np.full(20 * SAMPLING_RATE, 300, np.int16))
    window = int(window_s * SAMPLING_RATE)
    settings = {"window_samples": window, "shortest_samples": window // 2, "detection": SpeechDetection(0.5)}
    assert reader_of(recording, end_in_pauses=end_in_pauses, **settings).next_window() is None
    assert recording.num_stretches


def test_silence_is_not_decoded_and_windows_skipped_as_silence_are_passed():
    listener = Listener(SpokenNumbers(Recording(np.zeros(0, np.int16)), ()))
    assert read(reader_of(Recording(np.zeros(60 * SAMPLING_RATE, np.int16))), listener) == []
    assert listener.requests == []
    murmur = Recording(np.full(int(12.5 * SAMPLING_RATE), 300, np.int16))
    assert read(reader_of(murmur), listener) == []
    assert [(one.start_s, one.end / SAMPLING_RATE) for one in listener.requests] == [(0, 5.0), (5, 10.0), (10, 12.5)]


def test_an_empty_recording_has_no_window():
    assert reader_of(Recording(np.zeros(0, np.int16))).next_window() is None


class FollowingListener(TimingListener):
    """Remembers what it was given to follow on from; ``logprob`` is of windows with text before them."""

    logprob = -0.05
    temperature = 0.0
    loses_words = False

    def hear(self, request):
        heard = super().hear(request)
        if not request.options.previous_ids:
            return replace(heard, avg_logprob=-0.1)
        segments = () if self.loses_words else heard.segments
        return result(segments, heard_s=heard.heard_s, avg_logprob=self.logprob, temperature=self.temperature)


def given(listener: Listener) -> list[int]:
    return [len(request.options.previous_ids) for request in listener.requests]


def test_windows_are_conditioned_on_the_tokens_before_them_and_three_are_tried_without():
    spoken = say(60, seed=5)
    listener = FollowingListener(spoken)
    assert join_segments(read(reader_of(spoken.recording, follow_text=True), listener)) == spoken.text
    numbers = given(listener)
    assert numbers[0] == 0
    assert numbers[1:7] == [numbers[1], 0, numbers[3], 0, numbers[5], 0]
    assert all(0 < one < other for one, other in pairwise(numbers[7:]))
    assert set(listener.requests[-1].options.previous_ids) == {1000, 1, 1001}


@pytest.mark.parametrize("logprob", [-0.001, -0.3])
def test_a_model_that_loses_words_after_text_gets_no_text_and_loses_no_word(logprob):
    spoken = say(60, seed=6)
    listener = FollowingListener(spoken)
    listener.loses_words, listener.logprob = True, logprob
    assert join_segments(read(reader_of(spoken.recording, follow_text=True), listener)) == spoken.text
    assert sum(number > 0 for number in given(listener)) == 1


def test_text_sampled_at_a_high_temperature_does_not_condition_the_next_window():
    spoken = say(60, seed=7)
    listener = FollowingListener(spoken)
    listener.temperature = 0.6
    read(reader_of(spoken.recording, follow_text=True), listener)
    numbers = given(listener)
    assert numbers[1] > 0
    assert max(numbers) < 40  # two windows' tokens at most: the second one's are forgotten with what came before


@pytest.mark.parametrize("temperatures", [(0.0,), (0.0, 1.0)])
def test_text_that_no_temperature_made_plausible_does_not_condition_the_next_window(temperatures):
    spoken = say(60, seed=7)
    listener = FollowingListener(spoken)
    listener.logprob = -0.05
    options = replace(TIMED, temperatures=temperatures, logprob_threshold=-0.01)
    read(reader_of(spoken.recording, options, follow_text=True), listener)
    assert (max(given(listener)) > 0) is (len(temperatures) == 1), "a caller's one temperature is no failure"


def test_without_the_setting_no_window_is_conditioned_on_text():
    spoken = say(30, seed=8)
    listener = FollowingListener(spoken)
    read(reader_of(spoken.recording, follow_text=False), listener)
    assert set(given(listener)) == {0}


def test_the_first_window_with_text_decides_the_language():
    spoken = say(40, seed=9)

    class Linguist(TimingListener):
        def hear(self, request):
            heard = super().hear(request)
            quiet = len(self.requests) == 1
            language = request.options.language or ("fr" if quiet else "de")
            return replace(heard, language=language, segments=() if quiet else heard.segments)

    listener = Linguist(spoken)
    reader = reader_of(spoken.recording, DecodeOptions(language=None, timestamps=True))
    assert reader.language is None
    segments = read(reader, listener)
    assert [request.options.language for request in listener.requests[:3]] == [None, None, "de"]
    assert {segment.language for segment in segments} == {"de"}
    assert reader.language == "de"


class HeardNumbers(Recording):
    """Numbers, in which a voice is found where one is said."""

    def __init__(self, spoken: SpokenNumbers) -> None:
        super().__init__(spoken.recording.samples)
        self._spans = spoken.spans

    def find_speech(self, start, end, *, threshold, min_silence_s):
        return ((max(start, first), min(end, last)) for first, last in self._spans if first < end and last > start)


def test_a_model_for_short_utterances_gets_no_silence_longer_than_between_two_of_them():
    second = SAMPLING_RATE
    spans = tuple((int(at * second), int(at * second) + second // 2) for at in (4.0, 4.8, 8.5, 9.3))
    samples = np.zeros(14 * second, np.int16)
    for number, (first, last) in enumerate(spans):
        samples[first:last] = 200 + 5 * number
    spoken = SpokenNumbers(Recording(samples), spans)
    listener = Listener(spoken)
    detection = SpeechDetection(0.5, before_samples=3 * second // 10, after_samples=second // 5)
    reader = reader_of(HeardNumbers(spoken), end_in_pauses=True, detection=detection)
    assert join_segments(read(reader, listener)) == spoken.text
    heard = [(request.start / second, request.end / second) for request in listener.requests]
    assert heard == [(3.7, 5.5), (8.2, 10.0)]
