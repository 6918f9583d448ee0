"""Sort windows of any length and options into batches that an engine can run; shared by all engines.

Shapes: B batch, S samples, M mel bins, F frames, T tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.audio.features import log_mel_batch
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.attempt import WindowDecoder
from sottovoce.recognize.decoding.batch import decode_batch
from sottovoce.recognize.decoding.session import DecoderSession
from sottovoce.recognize.decoding.stepwise import StepwiseDecoder
from sottovoce.recognize.steps import BatchDecoding, Step
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Waveform
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


OpenBatch = Callable[[NDArray[np.float32]], EncodedBatch]
"""Function that encodes input_features (B, M, F)."""


def decode_windows(
    open_batch: OpenBatch,
    windows: Sequence[Waveform],
    options: Sequence[DecodeOptions],
    *,
    vocabulary: Vocabulary,
    context: AudioContext,
    num_mel_bins: int,
    max_batch_size: int,
) -> list[BatchDecoding]:
    """Prepare to decode windows, in batches that share a context and a prefix length.

    No window is padded to the length of another, and int8 scales each position by itself. So the result of a window
    does not depend on the rest of its batch; in int8 exports of releases before 0.2 it does slightly.

    Returns:
        The decoding of each batch. They may take turns; nothing is computed before the first step.

    Raises:
        ContextError: a window longer than the longest context.
        LanguageError: a language the model does not know.
        CheckpointError: in a step; word times with alignment heads that the decoder does not have.
        WordTimesUnavailableError: in a step; word times from an engine without cross-attention.
    """

    def decode(batch: Sequence[int], num_frames: int) -> Iterator[Step]:
        waveforms = [windows[index] for index in batch]
        encoded = open_batch(log_mel_batch(waveforms, num_mel_bins=num_mel_bins, num_frames=num_frames))
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

    groups: dict[tuple[int, bool, int], list[int]] = defaultdict(list)
    for index, (window, option) in enumerate(zip(windows, options, strict=True)):
        num_frames = context.num_frames_for(window.shape[0] / SAMPLING_RATE)
        vocabulary.prefix(option.language or vocabulary.languages[0], option)  # an unknown language fails first
        groups[num_frames, option.timestamps, len(vocabulary.previous(option))].append(index)
    return [
        BatchDecoding(tuple(batch), decode(batch, num_frames))
        for (num_frames, *_), indices in groups.items()
        for start in range(0, len(indices), max_batch_size)
        for batch in (indices[start : start + max_batch_size],)
    ]
