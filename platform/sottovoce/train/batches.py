"""Training batches: from recordings to masked log-mel spectrograms at the batch's own audio context, and labels.

Shapes: B batch, S samples, M mel bins, F frames, T tokens.
"""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperTokenizerFast

from sottovoce.audio.augmentation.augment import utterance_generator
from sottovoce.audio.augmentation.spec_augment import Masks, SpecAugmentConfig, draw_masks
from sottovoce.audio.waveform import from_pcm
from sottovoce.errors import LabelTooLongError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.labels import IGNORED, Labels, encode_example
from sottovoce.schema import HOP_LENGTH, SAMPLING_RATE, Example, PcmBatch, Reject, Waveform
from sottovoce.train.spectrograms import Spectrograms, build_spectrograms

T = TypeVar("T")

_POLL_S = 0.1  # interval at which a producer checks whether it is stopped


@dataclass(frozen=True)
class LabelChoice:
    """How one example is labelled in one epoch."""

    timestamps: bool
    previous_text: bool


@dataclass(frozen=True)
class LabelMix:
    """How often labels carry timestamps or a previous text, so that a fine-tuned Whisper does not forget either."""

    timestamp_probability: float
    previous_text_probability: float

    def choose(self, example_id: str, *, seed: int, epoch: int) -> LabelChoice:
        """Choose for one example; the same seed, epoch and id always give the same choice."""
        generator = utterance_generator("label_mix", seed=seed, epoch=epoch, utterance_id=example_id)
        timed, prompted = generator.random(2)
        return LabelChoice(
            timestamps=bool(timed < self.timestamp_probability),
            previous_text=bool(prompted < self.previous_text_probability),
        )


@dataclass(frozen=True)
class TrainBatch:
    """One batch, ready for the model."""

    input_features: Tensor
    """(B, M, F) float32; already on the device if it is a GPU."""
    decoder_input_ids: Tensor
    """(B, T) int64: prompt, prefix and text, padded with the end token."""
    labels: Tensor
    """(B, T) int64: the token after each input; IGNORED on prompts and after the first end token."""
    audio_s: float
    """Seconds of speech, without padding."""
    rejects: tuple[Reject, ...] = ()
    """Utterances that could not be decoded, or whose labels are longer than the decoder's context."""
    step: int = 0
    """Index in the run."""
    microbatch: int = 0
    """Index in the step."""
    ids: tuple[str, ...] = ()
    """Of the utterances."""
    random_seed: int = 0
    """Seed of dropout while this batch is computed, on whatever rank."""

    @property
    def label_indices(self) -> Tensor:
        """(N,) of the labels that count; found on the CPU, because their number is needed without waiting for a GPU."""
        return find_label_indices(self.labels)


@dataclass(frozen=True)
class Collator:
    """Make batches for one model."""

    tokenizer: WhisperTokenizerFast
    context: AudioContext
    spectrograms: Spectrograms

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: torch.device, *, num_threads: int) -> "Collator":
        """Build the collator of a model on a device; its spectrograms are to be closed.

        Args:
            checkpoint: the model.
            device: what it computes on.
            num_threads: threads that compute log-mel spectrograms on a CPU.
        """
        spectrograms = build_spectrograms(
            device,
            num_mel_bins=checkpoint.num_mel_bins,
            num_threads=num_threads,
            padding=checkpoint.context.padding,
        )
        return cls(checkpoint.tokenizer, checkpoint.context, spectrograms)

    def training_batch(
        self, batch: PcmBatch, *, spec_augment: SpecAugmentConfig, label_mix: LabelMix, seed: int
    ) -> TrainBatch:
        """Build a training batch; an example without samples has no labels that count.

        Args:
            batch: from the stream.
            spec_augment: masks on the log-mel spectrograms.
            label_mix: how often labels carry timestamps or a previous text.
            seed: of masks and label mix, together with epoch and example.
        """
        limit = round(self.context.max_s * SAMPLING_RATE)  # durations are rounded: joined they may be samples longer
        waveforms = [from_pcm(np.concatenate(parts)[:limit]) for parts in batch.recordings]

        def masks_of(waveform: Waveform, example: Example) -> Masks:
            return draw_masks(
                spec_augment,
                seed=seed,
                epoch=batch.epoch,
                utterance_id=example.id,
                num_frames=len(waveform) // HOP_LENGTH,
                num_mel_bins=self.spectrograms.num_mel_bins,
            )

        masks = [masks_of(*pair) for pair in zip(waveforms, batch.examples, strict=True)]
        spectrograms = self.spectrograms.compute(waveforms, num_frames=self._num_frames(waveforms), masks=masks)
        labels, rejects = self._training_labels(batch, label_mix, seed=seed)
        packed = self._pack(spectrograms, labels, waveforms)
        return replace(
            packed,
            rejects=(*batch.rejects, *rejects),
            step=batch.step,
            microbatch=batch.microbatch,
            ids=tuple(one.id for example in batch.examples for one in example.utterances),
            random_seed=int(np.random.SeedSequence([seed, batch.step, batch.microbatch]).generate_state(1)[0]),
        )

    def empty_batch(self) -> TrainBatch:
        """Build a batch of one silent example whose only label does not count; its loss and gradient are zero."""
        silence = np.zeros(0, np.float32)
        return self._pack(
            torch.zeros(1, self.spectrograms.num_mel_bins, self._num_frames([silence])), [None], [silence]
        )

    def validation_batch(self, waveforms: Sequence[Waveform], labels: Sequence[Labels | None]) -> TrainBatch:
        """Build a batch of waveforms (S,) and their labels, without augmentation."""
        spectrograms = self.spectrograms.compute(waveforms, num_frames=self._num_frames(waveforms))
        return self._pack(spectrograms, labels, waveforms)

    def _num_frames(self, waveforms: Sequence[Waveform]) -> int:
        return self.context.num_frames_for(max(len(waveform) for waveform in waveforms) / SAMPLING_RATE)

    def _training_labels(
        self, batch: PcmBatch, label_mix: LabelMix, *, seed: int
    ) -> tuple[list[Labels | None], list[Reject]]:
        """Encode the labels of every example; one that does not fit the decoder becomes rejects and has no labels."""
        labels: list[Labels | None] = []
        rejects: list[Reject] = []
        for example, parts in zip(batch.examples, batch.recordings, strict=True):
            choice = label_mix.choose(example.id, seed=seed, epoch=batch.epoch)
            try:
                encoded = encode_example(
                    self.tokenizer,
                    example,
                    num_samples=[len(part) for part in parts],
                    timestamps=choice.timestamps,
                    previous_text=choice.previous_text,
                )
            except LabelTooLongError as error:
                encoded = None
                rejects += [
                    Reject(id=one.id, audio=one.audio, reason="label_too_long", detail=str(error))
                    for one in example.utterances
                ]
            labels.append(encoded)
        return labels, rejects

    def _pack(
        self,
        spectrograms: Tensor,
        labels: Sequence[Labels | None],
        waveforms: Sequence[Waveform],
    ) -> TrainBatch:
        decoder_input_ids, targets = pad_labels(labels, padding_id=int(self.tokenizer.eos_token_id))
        return TrainBatch(
            input_features=spectrograms,
            decoder_input_ids=decoder_input_ids,
            labels=targets,
            audio_s=sum(len(waveform) for waveform in waveforms) / SAMPLING_RATE,
        )


def pad_labels(labels: Sequence[Labels | None], *, padding_id: int) -> tuple[Tensor, Tensor]:
    """Pad the labels of a batch to one length.

    Args:
        labels: B, None for an example without labels that count.
        padding_id: fills the inputs. It is the end token, so targets are masked by length, not by value.

    Returns:
        Inputs (B, T) and targets (B, T).
    """
    num_tokens = max([1, *(len(one.inputs) for one in labels if one)])
    inputs = torch.full((len(labels), num_tokens), padding_id)
    targets = torch.full((len(labels), num_tokens), IGNORED)
    for row, one in enumerate(labels):
        if one:
            inputs[row, : len(one.inputs)] = torch.tensor(one.inputs)
            targets[row, : len(one.targets)] = torch.tensor(one.targets)
    return inputs, targets


def find_label_indices(labels: Tensor) -> Tensor:
    """Find the indices (N,) int64 of the labels that count, in a batch (B, T) flattened row by row."""
    return (labels != IGNORED).flatten().nonzero().squeeze(1)


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None


@contextmanager
def prefetched(values: Iterable[T], *, depth: int) -> Iterator[Iterator[T]]:
    """Read values ahead in a thread until the block is left, which also closes the source.

    Args:
        values: read in order; an error it raises is raised by the iterator.
        depth: most values held ready.
    """
    ready: queue.Queue[_Item[T] | _End] = queue.Queue(maxsize=max(1, depth))
    stopped = threading.Event()
    producer = threading.Thread(target=_produce, args=(values, ready, stopped), name="prefetch", daemon=True)
    producer.start()
    try:
        yield _drain(ready)
    finally:
        stopped.set()
        producer.join()


def _produce(values: Iterable[T], ready: "queue.Queue[_Item[T] | _End]", stopped: threading.Event) -> None:
    error: BaseException | None = None
    iterator = iter(values)
    try:
        while not stopped.is_set():
            _put(_Item(next(iterator)), ready, stopped)
    except StopIteration:
        pass
    except Exception as caught:  # noqa: BLE001 - Ray Data raises whatever a task raised; the consumer re-raises it
        error = caught
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
    _put(_End(error), ready, stopped)


def _put(item: _Item[T] | _End, ready: "queue.Queue[_Item[T] | _End]", stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            ready.put(item, timeout=_POLL_S)
        except queue.Full:
            continue
        return


def _drain(ready: "queue.Queue[_Item[T] | _End]") -> Iterator[T]:
    while True:
        item = ready.get()
        if isinstance(item, _Item):
            yield item.value
        elif item.error is not None:
            raise item.error
        else:
            return
