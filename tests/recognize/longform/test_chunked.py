from dataclasses import replace
from itertools import pairwise
from threading import Thread

import numpy as np
import pytest
from spoken_numbers import BusyListener, Listener, SpokenNumbers, StuckListener, TimingListener, say

from sottovoce.recognize.longform.chunked import ChunkedReader, plan_windows
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import join_segments
from sottovoce.recognize.longform.window import WindowRequest
from sottovoce.schema import SAMPLING_RATE, DecodeOptions

WINDOW = 5 * SAMPLING_RATE
BEFORE, AFTER = int(0.3 * SAMPLING_RATE), int(0.2 * SAMPLING_RATE)


def plan(
    recording: Recording, speech, *, before: int = BEFORE, after: int = AFTER, least_speech: int = 0
) -> list[tuple[int, int]]:
    return list(
        plan_windows(
            recording,
            speech,
            window_samples=WINDOW,
            shortest_samples=WINDOW // 2,
            before_samples=before,
            after_samples=after,
            least_speech_samples=least_speech,
        )
    )


def seconds(*spans: tuple[float, float]) -> list[tuple[int, int]]:
    return [(round(start * SAMPLING_RATE), round(end * SAMPLING_RATE)) for start, end in spans]


def quiet(duration_s: float) -> Recording:
    return Recording(np.zeros(int(duration_s * SAMPLING_RATE), np.int16))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("margins", [(BEFORE, AFTER), (0, 0), (10 * WINDOW, 10 * WINDOW)])
def test_windows_fit_the_context_do_not_overlap_and_contain_all_speech(seed, margins):
    spoken = say(80, seed=seed, longest_pause_s=1.5)
    windows = plan(spoken.recording, spoken.spans, before=margins[0], after=margins[1])
    assert all(0 <= start < end <= spoken.recording.num_samples for start, end in windows)
    assert all(end - start <= WINDOW for start, end in windows)
    assert all(one[1] <= other[0] for one, other in pairwise(windows))
    for word in spoken.spans:
        assert sum(start <= word[0] and word[1] <= end for start, end in windows) == 1


def test_speech_is_gathered_until_a_window_is_full_and_keeps_its_margins():
    speech = seconds((1.0, 2.0), (2.2, 3.8), (4.4, 6.0), (6.4, 8.0))
    samples = np.zeros(20 * SAMPLING_RATE, np.int16)
    for start, end in speech:
        samples[start:end] = 5_000
    first, second = plan(Recording(samples), speech)
    assert first == (round(0.7 * SAMPLING_RATE), pytest.approx(4.1 * SAMPLING_RATE, abs=160))  # in the longest pause
    assert second == (first[1], round(8.2 * SAMPLING_RATE))


def test_a_long_silence_is_left_out():
    assert plan(quiet(20.0), seconds((1.0, 1.5), (4.0, 4.5))) == seconds((0.7, 1.7), (3.7, 4.7))


def test_single_words_are_gathered_with_the_silence_between_them():
    words = seconds((1.0, 1.5), (4.0, 4.5), (7.5, 8.0), (12.0, 12.5), (20.0, 20.5))
    expected = seconds((0.7, 4.7), (7.2, 8.2), (11.7, 12.7), (19.7, 20.7))
    assert plan(quiet(30.0), words, least_speech=2 * SAMPLING_RATE) == expected
    sentence = seconds((1.0, 3.2), (5.3, 5.8))
    assert plan(quiet(30.0), sentence, least_speech=2 * SAMPLING_RATE) == seconds((0.7, 3.4), (5.0, 6.0))


def test_speech_longer_than_a_window_is_cut_at_its_quietest_point():
    samples = np.full(12 * SAMPLING_RATE, 5_000, np.int16)
    samples[int(3.5 * SAMPLING_RATE) : int(3.7 * SAMPLING_RATE)] = 50
    windows = plan(Recording(samples), [(0, len(samples))])
    assert windows[0] == (0, pytest.approx(3.6 * SAMPLING_RATE, abs=160))
    assert sum(end - start for start, end in windows) == len(samples)
    assert max(end - start for start, end in windows) <= WINDOW


def test_a_window_is_planned_before_later_speech_is_searched():
    def speech():
        yield from seconds((1.0, 5.0), (5.5, 9.0))
        raise AssertionError("looked on")

    windows = plan_windows(
        quiet(60.0), speech(), window_samples=WINDOW, shortest_samples=WINDOW // 2, before_samples=0, after_samples=0
    )
    start, end = next(windows)
    assert start == SAMPLING_RATE
    assert 3.5 * SAMPLING_RATE <= end <= 6 * SAMPLING_RATE


def read(spoken: SpokenNumbers, listener: Listener, *, seed: int, options: DecodeOptions | None = None) -> list:
    """Drive a reader with up to four windows at a time, whose results come in any order."""
    windows = iter(plan(spoken.recording, spoken.spans))
    reader = ChunkedReader(spoken.recording, options or DecodeOptions(timestamps=True), windows)
    random = np.random.default_rng(seed)
    waiting, segments = [], []
    while True:
        while len(waiting) < 4 and (request := reader.next_window()) is not None:
            waiting.append(request)
        if not waiting:
            return segments
        request = waiting.pop(random.integers(len(waiting)))
        segments += reader.take(request, listener.hear(request))


@pytest.mark.parametrize("listener_class", [Listener, TimingListener, StuckListener, BusyListener])
@pytest.mark.parametrize("seed", range(8))
def test_every_word_is_transcribed_once_in_order_for_any_order_of_results(seed, listener_class):
    spoken = say(60, seed=seed)
    segments = read(spoken, listener_class(spoken), seed=seed)
    assert join_segments(segments) == spoken.text
    assert all(one.start_s <= one.end_s <= other.start_s + 1e-6 for one, other in pairwise(segments))


@pytest.mark.parametrize("seed", range(8))
def test_the_unfinished_rest_of_a_window_is_decoded_before_later_segments_are_returned(seed):
    class Hasty(TimingListener):
        """Leaves everything but the first word of a window unfinished."""

        def hear(self, request):
            heard = super().hear(request)
            if len(heard.segments) < 2:
                return heard
            return replace(heard, segments=heard.segments[:1], heard_s=heard.segments[0].end_s)

    spoken = say(40, seed=seed)
    assert join_segments(read(spoken, Hasty(spoken), seed=seed)) == spoken.text


def test_segments_are_returned_as_soon_as_those_before_them_are_known():
    spoken = say(40, seed=0)
    reader = ChunkedReader(spoken.recording, DecodeOptions(), iter(plan(spoken.recording, spoken.spans)))
    listener = Listener(spoken)
    first, second, third = (reader.next_window() for _ in range(3))
    assert reader.take(second, listener.hear(second)) == []
    assert [one.seek_s for one in reader.take(first, listener.hear(first))] == [first.start_s, second.start_s]
    assert [one.seek_s for one in reader.take(third, listener.hear(third))] == [third.start_s]


def test_a_window_requested_by_another_thread_during_take_waits_for_it():
    """The result's request has a window looked for by another thread whenever it is itself looked at."""
    spoken = say(60, seed=0)
    reader = ChunkedReader(spoken.recording, DecodeOptions(), iter(plan(spoken.recording, spoken.spans)))
    listener = Listener(spoken)
    asked: list[Thread] = []
    given: list[WindowRequest | None] = []

    class Watched(WindowRequest):
        def __getattribute__(self, name):
            if name == "start" and not (asked and asked[-1].is_alive()):
                asked.append(Thread(target=lambda: given.append(reader.next_window())))
                asked[-1].start()
                asked[-1].join(0.05)  # where nothing holds it back it is done by then
            return super().__getattribute__(name)

    first, second = reader.next_window(), reader.next_window()
    heard = listener.hear(second)
    assert reader.take(Watched(start=second.start, end=second.end, options=second.options), heard) == []
    for thread in asked:
        thread.join()
    segments = reader.take(first, listener.hear(first))
    waiting = [request for request in given if request is not None]
    assert len(waiting) == len(asked)
    while waiting:
        request = waiting.pop()
        segments += reader.take(request, listener.hear(request))
        if (request := reader.next_window()) is not None:
            waiting.append(request)
    assert join_segments(segments) == spoken.text


def test_while_the_language_is_unknown_windows_are_decoded_one_at_a_time():
    spoken = say(40, seed=0)
    options = DecodeOptions(language=None)
    reader = ChunkedReader(spoken.recording, options, iter(plan(spoken.recording, spoken.spans)))
    listener = Listener(spoken)
    first = reader.next_window()
    assert first.options.language is None
    assert reader.next_window() is None
    reader.take(first, replace(listener.hear(first), language="de"))
    assert [reader.next_window().options.language for _ in range(2)] == ["de", "de"]
    assert reader.language == "de"
