"""Build the reader of a recording from settings. Imports no engine, so that a gateway stays light."""

from collections.abc import Iterator
from dataclasses import replace

from sottovoce.audio.voice_activity import Span
from sottovoce.recognize.longform.chunked import ChunkedReader, plan_windows
from sottovoce.recognize.longform.options import LongFormOptions
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.sequential import SequentialReader, SpeechDetection
from sottovoce.recognize.longform.window import Reader
from sottovoce.schema import MAX_CONTEXT_S, SAMPLING_RATE, DecodeOptions

# Share of the longest context, for a model with trimmed contexts: the cost of a window follows its length, and most
# training speech is shorter. Four minutes of sentences with micro (2 to 10 s): WER 3.9 % in windows of up to 10 s,
# 0.3 % in windows of up to 6 s, 0.8 % for the sentences alone (2026-11).
_SHARE_OF_TRIMMED = 0.6
# Of a window that stock Whisper reads. In windows of one digit each, between pauses of 1 to 8 s, whisper-base got half
# of 24 digits right; in windows of several, all (slow_speech, 2026-12). Sentences are better alone (guess).
_LEAST_SPEECH_S = 5.0


def build_reader(
    recording: Recording,
    options: DecodeOptions,
    long_form: LongFormOptions,
    *,
    min_window_s: float,
    max_window_s: float,
) -> Reader:
    """Build the reader of a recording; nothing is read before the first window is requested.

    Args:
        recording: the recording to read.
        options: the options of every window. The sequential algorithm always generates timestamps with a stock
            Whisper, because it moves by them. A model with trimmed contexts generates none if its words are timed: its
            windows end in pauses, word times give the times of sentences, and its text without timestamps has fewer
            errors (micro, ten minutes of sentences: WER 2.4 to 2.8 % instead of 4.5 to 5.1 %, 2026-11).
        long_form: algorithm and settings.
        min_window_s: the model's shortest context.
        max_window_s: the model's longest context, and so the longest window.
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
            least_speech_s=0.0 if is_trimmed else _LEAST_SPEECH_S,
        )
        return ChunkedReader(recording, options, windows)
    before_s, after_s = long_form.prefix_padding_s, long_form.min_silence_s
    detection = SpeechDetection(long_form.threshold, round(before_s * SAMPLING_RATE), round(after_s * SAMPLING_RATE))
    return SequentialReader(
        recording,
        options if is_trimmed else replace(options, timestamps=True),
        window_samples=window_samples,
        shortest_samples=shortest_samples,
        follow_text=long_form.condition_on_previous_text,
        end_in_pauses=is_trimmed,
        detection=detection if long_form.skip_without_voice else None,
    )


def _plan(
    recording: Recording,
    long_form: LongFormOptions,
    *,
    whole_samples: int,
    window_samples: int,
    shortest_samples: int,
    least_speech_s: float,
) -> Iterator[Span]:
    """Cut a recording into windows. One that fits the model's context is one window, or none if it has no speech."""
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
        least_speech_samples=round(least_speech_s * SAMPLING_RATE),
    )
