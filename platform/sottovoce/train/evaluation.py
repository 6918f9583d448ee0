"""Evaluate the model in training on the validation split: every rank reads its share, every rank gets the scores.

Recordings are decoded ahead of the model, by whoever gives them. One that cannot be read is a reject, as in training:
it counts in no score of this evaluation, on any rank.

The encoder runs once, for the loss and for the text. The loss reads the whole reference at once, and its logits show
which token greedy decoding would choose at each position. Where these are the reference itself, from the first token
to the end token, nothing is left to decode. So an evaluation gets faster as the model gets better.

To report a metric beside WER and CER, add an entry to ``VALIDATION_METRICS``: it appears in the rows of the record, the
log, the curves, the trackers and the model card.

Shapes: B batch, P positions, D model width.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import WhisperTokenizerFast

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.errors import ConfigError, LabelTooLongError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.labels import Labels, encode_example
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import MAX_LABEL_TOKENS, DecodeOptions, Example, Reject, Utterance, Waveform
from sottovoce.text.group_score import GroupScore, score_utterances
from sottovoce.text.normalize import Normalizer
from sottovoce.text.score import Score
from sottovoce.train.batches import Collator, TrainBatch, prefetched
from sottovoce.train.health.failure import describe_batch, memory_explained
from sottovoce.train.health.heartbeat import Phase
from sottovoce.train.objective import WhisperObjective

_PREFIX_LENGTH = 4  # start, language, task, no-timestamps
_MARGIN = 1.5  # a hypothesis may have this many times the tokens of the longest reference; untrained models ramble
_PREFETCH_BATCHES = 2
_TRUSTED = -float(DecodeOptions().logprob_threshold or 0.0)
"""Nats per token. A text below this surprise is never taken for silence, whatever the no-speech probability is."""

Recordings: TypeAlias = Callable[[Sequence[Sequence[Utterance]]], Iterator[Sequence[Waveform | Reject]]]
"""Reads batches of utterances; see ``TrainingStream.recordings``."""

LOST_METRIC: Final = "lost_utterances"
"""In the metrics of a row, where recordings could not be read: how many."""


def _ignore(_: Phase) -> None:
    """Note nothing."""


def _allow(_: Sequence[Reject]) -> None:
    """Accept any rejects."""


@dataclass(frozen=True)
class Transcribed:
    """What could be read of the validation split, with what the model recognized: the input of a validation metric."""

    utterances: Sequence[Utterance]
    """U, with their references."""
    hypotheses: Sequence[str]
    """U, not normalized."""
    score: Score
    """WER and CER over all utterances."""


VALIDATION_METRICS: Final[dict[str, Callable[[Transcribed], float]]] = {
    "wer": lambda transcribed: transcribed.score.wer.rate,
    "cer": lambda transcribed: transcribed.score.cer.rate,
}
"""What an evaluation computes, by the names in curves and trackers."""

_ROW_FIELDS = frozenset({"wer", "cer"})
"""Metrics with a field of their own in ``EvaluationRow``; the others are in its ``metrics``."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation, the same on every rank."""

    validation_loss: float
    score: Score
    groups: tuple[GroupScore, ...]
    """Corpora and languages, where there are several."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """All of ``VALIDATION_METRICS``."""
    rejects: tuple[Reject, ...] = ()
    """The recordings that could not be read, of all ranks; no score counts them."""

    def row(self, *, step: int, epoch: float, training_loss: float | None, seconds: float) -> EvaluationRow:
        """Build the row of a run's record.

        Args:
            step: steps taken before the evaluation.
            epoch: the same in epochs.
            training_loss: mean per token since the row before; None before the first step.
            seconds: since the run's first start.
        """
        return EvaluationRow(
            step=step,
            epoch=epoch,
            training_loss=training_loss,
            validation_loss=self.validation_loss,
            wer=self.score.wer.rate,
            wer_low=self.score.wer.low,
            wer_high=self.score.wer.high,
            cer=self.score.cer.rate,
            cer_low=self.score.cer.low,
            cer_high=self.score.cer.high,
            headline=self.score.headline,
            seconds=seconds,
            groups=self.groups,
            metrics={name: value for name, value in self.metrics.items() if name not in _ROW_FIELDS}
            | ({LOST_METRIC: float(len(self.rejects))} if self.rejects else {}),
        )


@dataclass(frozen=True)
class _Batch:
    """A batch of validation, with the utterances that could be read."""

    indices: Sequence[int]
    made: TrainBatch | None
    """None if no recording could be read."""
    rejects: Sequence[Reject]


class Evaluator:
    """One rank's share of the validation split, and the evaluation of a model on it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        utterances: Sequence[Utterance],
        *,
        collator: Collator,
        accelerator: Accelerator,
        batch_size: int,
        normalizer: Normalizer,
        spelling: Mapping[str, str],
    ) -> None:
        """Take this rank's share.

        Args:
            checkpoint: holds the model that is trained.
            utterances: the whole validation split.
            collator: makes the batches for the loss.
            accelerator: has rank and precision.
            batch_size: the most utterances in a batch.
            normalizer: of the scores.
            spelling: see ``normalize``.

        Raises:
            LabelTooLongError: a transcript does not fit the decoder; the message names its utterance.
        """
        self._utterances = utterances
        batches = plan_batches([one.duration_s for one in utterances], collator.context, batch_size=batch_size)
        self._share = batches[accelerator.process_index :: accelerator.num_processes]
        self._accelerator = accelerator
        self._normalizer = normalizer
        self._spelling = spelling
        self._collator = collator
        self.labels = {index: _encode(checkpoint.tokenizer, one) for index, one in enumerate(utterances)}
        longest = max(len(labels.inputs) + 1 for labels in self.labels.values() if labels)
        self.max_new_tokens = min(MAX_LABEL_TOKENS - _PREFIX_LENGTH, int(_MARGIN * longest))
        """Most tokens of a hypothesis."""
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision)
        self._recognizer = TorchRecognizer(checkpoint, autocast=dtype, max_batch_size=batch_size)

    def evaluate(
        self,
        objective: WhisperObjective,
        recordings: Recordings,
        *,
        note: Callable[[Phase], object] = _ignore,
        check_rejects: Callable[[Sequence[Reject]], object] = _allow,
    ) -> Evaluation:
        """Compute the loss and all metrics over the whole split, and WER and CER also by corpus and language.

        Args:
            objective: around the model.
            recordings: decodes the utterances of batches.
            note: called with the phase at each batch, and when only other ranks' shares are left.
            check_rejects: called before the scores with the recordings of all ranks that could not be read, if there
                are some; it may end the run.

        Raises:
            ConfigError: no recording could be read.
            TrainingMemoryError: a batch does not fit.
        """
        objective.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self._accelerator.device)
        hypotheses: list[tuple[int, str]] = []
        rejects: list[Reject] = []
        with prefetched(self._batches(recordings), depth=_PREFETCH_BATCHES) as batches:
            for batch in batches:
                note("evaluating")
                rejects += batch.rejects
                if batch.made is not None:
                    loss, recognized = self._evaluate_batch(objective, batch.indices, batch.made)
                    sums += loss
                    hypotheses += zip(batch.indices, recognized, strict=True)
        objective.train()
        note("waiting for the other ranks")
        sums = self._accelerator.reduce(sums)
        texts, lost = dict(gather_object(hypotheses)), gather_object(rejects)
        if lost:
            check_rejects(lost)
        return self._score(sums, texts, lost)

    def _batches(self, read: Recordings) -> Iterator[_Batch]:
        """Yield this rank's batches; those of a batch that cannot be read are left out of it."""
        recordings = read([[self._utterances[index] for index in indices] for indices in self._share])
        for indices, outcomes in zip(self._share, recordings, strict=True):
            good = [(index, one) for index, one in zip(indices, outcomes, strict=True) if not isinstance(one, Reject)]
            kept, made = [index for index, _ in good], None
            if kept:
                labels = [self.labels[index] for index in kept]
                made = self._collator.validation_batch([waveform for _, waveform in good], labels)
                made = replace(made, ids=tuple(self._utterances[index].id for index in kept))
            yield _Batch(kept, made, [one for one in outcomes if isinstance(one, Reject)])

    def _evaluate_batch(
        self, objective: WhisperObjective, indices: Sequence[int], batch: TrainBatch
    ) -> tuple[Tensor, list[str]]:
        """Return the loss and the number of labels, (2,) float64, and the text of each utterance."""
        with memory_explained("evaluating", partial(describe_batch, batch), evaluates=True):
            encoded = self._recognizer.encode(batch.input_features)  # once, for the loss and for the text
            loss, is_right = self._read_references(objective, encoded, batch)
            return loss, self._recognize(indices, encoded, is_right)

    def _score(self, sums: Tensor, texts: Mapping[int, str], rejects: Sequence[Reject]) -> Evaluation:
        """Score what all ranks recognized.

        Raises:
            ConfigError: nothing could be read.
        """
        if not texts:
            raise ConfigError(
                f"none of the {len(self._utterances)} validation recordings can be read, the first because "
                f"{rejects[0].detail}; put them back, or prepare the corpus again"
            )
        utterances = [self._utterances[index] for index in sorted(texts)]
        hypotheses = [texts[index] for index in sorted(texts)]
        scored = score_utterances(utterances, hypotheses, normalizer=self._normalizer, spelling=self._spelling)
        transcribed = Transcribed(utterances, hypotheses, scored.score)
        return Evaluation(
            validation_loss=float(sums[0] / sums[1]),
            score=scored.score,
            groups=scored.groups,
            metrics={name: compute(transcribed) for name, compute in VALIDATION_METRICS.items()},
            rejects=tuple(rejects),
        )

    def _read_references(
        self, objective: WhisperObjective, encoded: Tensor, batch: TrainBatch
    ) -> tuple[Tensor, list[bool]]:
        """Score the references, all tokens at once (teacher forcing).

        Returns:
            Loss and number of labels, (2,) float64; and for each window whether decoding would return exactly its
            reference: each token is the likeliest after those before it, and Whisper's rule for silence keeps them.
        """
        device = self._accelerator.device
        indices, num_tokens = batch.label_indices, batch.labels.shape[1]
        wanted = batch.labels.flatten().index_select(0, indices).to(device)
        rows, columns = (indices // num_tokens).to(device), (indices % num_tokens).to(device)
        with torch.inference_mode(), self._accelerator.autocast():
            logits = objective.compute_logits(encoded, batch.decoder_input_ids.to(device), indices.to(device))
            losses = nn.functional.cross_entropy(logits, wanted, reduction="none").double()
            is_text = columns >= _PREFIX_LENGTH - 1  # the labels before it are those of the prefix
            is_first = columns == _PREFIX_LENGTH - 1
            is_wrong = is_text & (self._recognizer.choose_greedily(logits, is_first=is_first) != wanted)
            # of the logits as ``choose_greedily`` leaves them: suppressed tokens have no part of the probability
            surprises = nn.functional.cross_entropy(logits, wanted, reduction="none").double()
        zeros = torch.zeros(len(batch.labels), dtype=torch.float64, device=device)
        mistakes = zeros.index_add(0, rows, is_wrong.double())
        doubts = zeros.index_add(0, rows, torch.where(is_text, surprises, 0.0))
        lengths = zeros.index_add(0, rows, is_text.double())
        is_right = (lengths > 0) & (mistakes == 0) & (doubts < _TRUSTED * lengths)
        return torch.stack([losses.sum(), lengths.new_full((), float(len(wanted)))]), is_right.tolist()

    def _recognize(self, indices: Sequence[int], encoded: Tensor, is_right: Sequence[bool]) -> list[str]:
        """Recognize a batch; texts that are known to be right are not decoded."""
        texts = {index: self._reference(index) for index, known in zip(indices, is_right, strict=True) if known}
        rows = [row for row, known in enumerate(is_right) if not known]
        options = [
            DecodeOptions(language=one.language, task=one.task, max_new_tokens=self.max_new_tokens)
            for one in (self._utterances[indices[row]] for row in rows)
        ]
        if rows:
            results = self._recognizer.recognize_encoded(encoded[rows], options)
            texts |= {indices[row]: result.text for row, result in zip(rows, results, strict=True)}
        return [texts[index] for index in indices]

    def _reference(self, index: int) -> str:
        """Return an utterance's reference as a recognizer would have written it."""
        labels = self.labels[index]
        assert labels is not None, "only what has labels can be right"
        return self._recognizer.text(labels.targets[_PREFIX_LENGTH - 1 :])


def plan_batches(durations_s: Sequence[float], context: AudioContext, *, batch_size: int) -> list[list[int]]:
    """Divide utterances into batches of one audio context each, so that each is read as a recognizer will read it.

    Args:
        durations_s: of all utterances.
        context: determines the length of each spectrogram.
        batch_size: the most in a batch.

    Returns:
        Indices of the utterances; the batches of the longest come first.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index, duration_s in enumerate(durations_s):
        groups[context.num_frames_for(duration_s)].append(index)
    return [
        indices[first : first + batch_size]
        for _, indices in sorted(groups.items(), reverse=True)
        for first in range(0, len(indices), batch_size)
    ]


def _encode(tokenizer: WhisperTokenizerFast, utterance: Utterance) -> Labels | None:
    try:  # without timestamps only whether there are samples matters
        return encode_example(tokenizer, Example(utterances=(utterance,)), num_samples=[1])
    except LabelTooLongError as error:
        num_tokens, limit, _ = error.args
        raise LabelTooLongError(num_tokens, limit, f"validation utterance {utterance.id}") from error
