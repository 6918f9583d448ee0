"""Sort windows of any length and options into batches that an engine can run; shared by all engines.

Shapes: B batch, S samples, M mel bins, F frames, T tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sottovoce.audio.features import log_mel
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.attempt import WindowDecoder
from sottovoce.recognize.decoding.batch import decode_batch
from sottovoce.recognize.decoding.session import DecoderSession
from sottovoce.recognize.decoding.stepwise import StepwiseDecoder
from sottovoce.recognize.steps import BatchDecoding, Step
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, LogMel, Waveform
from sottovoce.words.word_times import AttentionSource, AttentionTimer, TokenTimer, time_result


class EncodedBatch(WindowDecoder, TokenTimer, Protocol):
    """A batch that can be decoded and whose words can be timed."""


class WindowSession(DecoderSession, AttentionSource, Protocol):
    """A batch of an engine that returns logits and attention."""


class StepwiseBatch(StepwiseDecoder, AttentionTimer):
    """The ``EncodedBatch`` of such an engine."""

    def __init__(self, session: WindowSession, vocabulary: Vocabulary, *, num_windows: int) -> None:
        """Wrap a session of ``num_windows`` encoded windows."""
        StepwiseDecoder.__init__(self, session, vocabulary, num_windows=num_windows)
        AttentionTimer.__init__(self, session, kinds=vocabulary.kinds)


OpenBatch = Callable[[Sequence[LogMel]], EncodedBatch]
"""Function that encodes the spectrograms (M, F) of B windows, all of one F unless the engine mixes contexts."""


@dataclass(frozen=True, kw_only=True)
class EncoderInput:
    """What a model's encoder reads."""

    context: AudioContext
    num_mel_bins: int
    mixes_contexts: bool = False
    """Whether the engine decodes windows of different contexts in one batch."""

    def spectrogram(self, window: Waveform) -> LogMel:
        """Compute the log-mel spectrogram (M, F) of a window (S,), padded to its context."""
        return log_mel(
            window,
            num_mel_bins=self.num_mel_bins,
            num_frames=self.context.num_frames_for(window.shape[0] / SAMPLING_RATE),
            padding=self.context.padding,
        )


def decode_windows(
    open_batch: OpenBatch,
    windows: Sequence[Waveform],
    options: Sequence[DecodeOptions],
    *,
    vocabulary: Vocabulary,
    encoder_input: EncoderInput,
    max_batch_size: int,
) -> list[BatchDecoding]:
    """Prepare to decode windows, in batches that share a prefix length and, unless the engine mixes them, a context.

    Each window is encoded at its own length; an engine that mixes contexts hides what it pads them with; and int8
    scales each position by itself. So the result of a window does not depend on the rest of its batch; in int8 exports
    of releases before 0.2 it does slightly.

    Returns:
        The decoding of each batch. They may take turns; nothing is computed before the first step.

    Raises:
        ContextError: a window longer than the longest context.
        LanguageError: a language the model does not know.
        CheckpointError: in a step; word times with alignment heads that the decoder does not have.
        WordTimesUnavailableError: in a step; word times from an engine without cross-attention.
    """

    def decode(batch: Sequence[int]) -> Iterator[Step]:
        waveforms = [windows[index] for index in batch]
        encoded = open_batch([encoder_input.spectrogram(window) for window in waveforms])
        yield Step({}, 0)
        decoding = decode_batch(
            encoded,
            [options[index] for index in batch],
            vocabulary=vocabulary,
            durations_s=[len(waveform) / SAMPLING_RATE for waveform in waveforms],
            max_rows=max_batch_size,
        )
        for ended in decoding:
            timed = {
                batch[row]: time_result(
                    encoded, row, result, options[batch[row]], waveform=waveforms[row], vocabulary=vocabulary
                )
                for row, result in ended.items()
            }
            yield Step(timed, encoded.num_generated)

    lengths = [encoder_input.context.num_frames_for(window.shape[0] / SAMPLING_RATE) for window in windows]
    groups: dict[tuple[int | None, bool, int], list[int]] = defaultdict(list)
    for index, option in enumerate(options):
        vocabulary.prefix(option.language or vocabulary.languages[0], option)  # an unknown language fails first
        num_frames = None if encoder_input.mixes_contexts else lengths[index]
        groups[num_frames, option.timestamps, len(vocabulary.previous(option))].append(index)
    return [
        BatchDecoding(tuple(batch), decode(batch))
        for indices in groups.values()
        for start in range(0, len(indices), max_batch_size)
        for batch in (sorted(indices, key=lengths.__getitem__)[start : start + max_batch_size],)
    ]
