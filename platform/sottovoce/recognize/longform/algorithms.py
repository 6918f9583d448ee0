"""From settings to an algorithm with its recording; imports no engine, so that a gateway stays light."""

from collections.abc import Iterator
from dataclasses import replace

from sottovoce.audio.voice_activity import Span
from sottovoce.recognize.longform.chunked import ChunkedReader, plan_windows
from sottovoce.recognize.longform.options import LongFormOptions
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.sequential import SequentialReader, Voices
from sottovoce.recognize.longform.window import Reader
from sottovoce.schema import MAX_CONTEXT_S, SAMPLING_RATE, DecodeOptions

# Of the longest context, for a model that reads trimmed ones: there a short window costs no more than its length, and
# most of what the model was trained on is shorter. Four minutes of sentences with micro (2 to 10 s): WER 3.9 % in
# windows of up to 10 s, 0.3 % of up to 6 s, 0.8 % as sentences alone (2026-11).
_SHARE_OF_TRIMMED = 0.6


def build_reader(
    recording: Recording,
    options: DecodeOptions,
    long_form: LongFormOptions,
    *,
    min_window_s: float,
    max_window_s: float,
) -> Reader:
    """Prepare an algorithm; nothing is read before its first window.

    Args:
        recording: what is read.
        options: of every window. The sequential algorithm lets a stock Whisper write times whatever they say: it moves
            by them. A model that reads trimmed contexts writes none where its words are timed: its windows end in
            pauses, its words say when a sentence was said, and what it writes without times is more often right (micro,
            ten minutes of sentences: WER 2.4 to 2.8 % instead of 4.5 to 5.1 %, 2026-11).
        long_form: which algorithm, and its settings.
        min_window_s: the model's shortest context.
        max_window_s: its longest, and so the longest window.
    """
    is_trimmed = min_window_s < MAX_CONTEXT_S
    if is_trimmed and options.word_timestamps:
        options = replace(options, timestamps=False)
    usual_s = max(min_window_s, _SHARE_OF_TRIMMED * max_window_s) if is_trimmed else max_window_s
    window_samples = round(min(long_form.window_s or usual_s, max_window_s) * SAMPLING_RATE)
    shortest_samples = round(min_window_s * SAMPLING_RATE) if is_trimmed else window_samples // 2
    if long_form.algorithm == "chunked":
        windows = _plan(
            recording,
            long_form,
            whole_samples=round(max_window_s * SAMPLING_RATE),
            window_samples=window_samples,
            shortest_samples=shortest_samples,
        )
        return ChunkedReader(recording, options, windows)
    before_s, after_s = long_form.prefix_padding_s, long_form.min_silence_s
    voices = Voices(long_form.threshold, round(before_s * SAMPLING_RATE), round(after_s * SAMPLING_RATE))
    return SequentialReader(
        recording,
        options if is_trimmed else replace(options, timestamps=True),
        window_samples=window_samples,
        shortest_samples=shortest_samples,
        follow_text=long_form.condition_on_previous_text,
        end_in_pauses=is_trimmed,
        voices=voices if long_form.skip_without_voice else None,
    )


def _plan(
    recording: Recording,
    long_form: LongFormOptions,
    *,
    whole_samples: int,
    window_samples: int,
    shortest_samples: int,
) -> Iterator[Span]:
    """Cut a recording; one that fits the model's context is left whole unless nobody speaks in it."""
    if recording.is_silent(0, recording.num_samples):
        return
    speech = recording.find_speech(
        0, recording.num_samples, threshold=long_form.threshold, min_silence_s=long_form.min_silence_s
    )
    if recording.num_samples <= whole_samples and not long_form.always_find_speech:
        if not long_form.skip_without_voice or next(speech, None) is not None:
            yield 0, recording.num_samples
        return
    yield from plan_windows(
        recording,
        speech,
        window_samples=window_samples,
        shortest_samples=shortest_samples,
        before_samples=round(long_form.prefix_padding_s * SAMPLING_RATE),
        after_samples=round(long_form.min_silence_s * SAMPLING_RATE),
    )
