"""Measure the model in training on the validation split: every rank decodes its share, every rank gets the scores.

The encoder runs once, for the loss and for the words. The loss reads the whole reference at once, and what it reads
tells which token decoding would choose at each place: where that is the reference itself, from the first token to the
end token, there is nothing left to decode. So a model is evaluated the faster the better it gets.

Shapes: B batch, P positions, D model width.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import WhisperTokenizerFast

from sottovoce.audio.decode import read_audio
from sottovoce.errors import LabelTooLongError
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.context import AudioContext
from sottovoce.model.labels import Labels, encode_example
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import MAX_LABEL_TOKENS, DecodeOptions, Example, Utterance, Waveform
from sottovoce.text.group_score import GroupScore, score_utterances
from sottovoce.text.normalize import Normalizer
from sottovoce.text.score import Score
from sottovoce.train.batches import Collator, TrainBatch
from sottovoce.train.health.failure import describe_batch, memory_explained
from sottovoce.train.health.heartbeat import Phase
from sottovoce.train.objective import WhisperObjective

_PREFIX_LENGTH = 4  # start, language, task, no-timestamps
_MARGIN = 1.5  # a hypothesis may grow to this many times the longest reference; untrained models write on and on
_TRUSTED = -float(DecodeOptions().logprob_threshold or 0.0)
"""Nats a token: a text that costs less is never taken for silence, however much the model hears none."""


def _ignore(_: Phase) -> None:
    """Hear nothing."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation gives on every rank."""

    validation_loss: float
    score: Score
    groups: tuple[GroupScore, ...]
    """Corpora and languages, where there are several."""


class Evaluator:
    """One rank's share of the validation split and what it takes to measure a model on it."""

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
            checkpoint: holds the very model that is trained.
            utterances: the whole validation split.
            collator: makes the batches the loss is measured on.
            accelerator: names the rank and the precision.
            batch_size: utterances at a time.
            normalizer: of the scores.
            spelling: see ``normalize``.

        Raises:
            LabelTooLongError: a transcript that does not fit the decoder; named with its utterance.
        """
        self._utterances = utterances
        batches = plan_batches([one.duration_s for one in utterances], collator.context, batch_size=batch_size)
        self._share = batches[accelerator.process_index :: accelerator.num_processes]
        self._accelerator = accelerator
        self._normalizer = normalizer
        self._spelling = spelling
        self._collator = collator
        self.labels = {place: _encode(checkpoint.tokenizer, one) for place, one in enumerate(utterances)}
        longest = max(len(labels.inputs) + 1 for labels in self.labels.values() if labels)
        self.max_new_tokens = min(MAX_LABEL_TOKENS - _PREFIX_LENGTH, int(_MARGIN * longest))
        """What a hypothesis may have."""
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision)
        self._recognizer = TorchRecognizer(checkpoint, autocast=dtype, max_batch_size=batch_size)

    def evaluate(self, objective: WhisperObjective, *, note: Callable[[Phase], object] = _ignore) -> Evaluation:
        """Measure loss, WER and CER over the whole split, and over its corpora and languages.

        Args:
            objective: around the model.
            note: hears at each batch that the evaluation goes on, and when only other ranks' shares are left.

        Raises:
            AudioError: a validation recording that cannot be decoded.
            TrainingMemoryError: a batch does not fit.
        """
        objective.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self._accelerator.device)
        hypotheses: list[tuple[int, str]] = []
        for places in self._share:
            waveforms = [_read(self._utterances[place]) for place in places]
            batch = self._collator.validation_batch(waveforms, [self.labels[place] for place in places])
            note("evaluating")
            named = replace(batch, ids=tuple(self._utterances[place].id for place in places))
            with memory_explained("evaluating", partial(describe_batch, named), evaluates=True):
                encoded = self._recognizer.encode(batch.input_features)  # once, for the loss and for the words
                loss, is_right = self._read_references(objective, encoded, batch)
                sums += loss
                hypotheses += zip(places, self._recognize(places, encoded, is_right), strict=True)
        objective.train()
        note("waiting for the other ranks")
        sums = self._accelerator.reduce(sums)
        texts = dict(gather_object(hypotheses))
        scored = score_utterances(
            self._utterances,
            [texts[place] for place in range(len(self._utterances))],
            normalizer=self._normalizer,
            spelling=self._spelling,
        )
        return Evaluation(validation_loss=float(sums[0] / sums[1]), score=scored.score, groups=scored.groups)

    def _read_references(
        self, objective: WhisperObjective, encoded: Tensor, batch: TrainBatch
    ) -> tuple[Tensor, list[bool]]:
        """Read what was said, all tokens at once.

        Returns:
            Loss and number of labels, (2,) float64; and for each window whether decoding would write these very words:
            each is the likeliest after those before it, and Whisper's rule for silence lets them stand.
        """
        device = self._accelerator.device
        places, num_tokens = batch.places, batch.labels.shape[1]
        wanted = batch.labels.flatten().index_select(0, places).to(device)
        rows, columns = (places // num_tokens).to(device), (places % num_tokens).to(device)
        with torch.inference_mode(), self._accelerator.autocast():
            logits = objective.read_labels(encoded, batch.decoder_input_ids.to(device), places.to(device))
            losses = nn.functional.cross_entropy(logits, wanted, reduction="none").double()
            is_text = columns >= _PREFIX_LENGTH - 1  # before it stand the labels of the prefix
            is_first = columns == _PREFIX_LENGTH - 1
            is_wrong = is_text & (self._recognizer.choose_greedily(logits, is_first=is_first) != wanted)
            # of the logits as ``choose_greedily`` leaves them: what may not be written takes no part of the probability
            surprises = nn.functional.cross_entropy(logits, wanted, reduction="none").double()
        zeros = torch.zeros(len(batch.labels), dtype=torch.float64, device=device)
        mistakes = zeros.index_add(0, rows, is_wrong.double())
        doubts = zeros.index_add(0, rows, torch.where(is_text, surprises, 0.0))
        lengths = zeros.index_add(0, rows, is_text.double())
        is_right = (lengths > 0) & (mistakes == 0) & (doubts < _TRUSTED * lengths)
        return torch.stack([losses.sum(), lengths.new_full((), float(len(wanted)))]), is_right.tolist()

    def _recognize(self, places: Sequence[int], encoded: Tensor, is_right: Sequence[bool]) -> list[str]:
        """Give the texts of a batch; those that are known to be right are not decoded."""
        texts = {place: self._reference(place) for place, known in zip(places, is_right, strict=True) if known}
        rows = [row for row, known in enumerate(is_right) if not known]
        options = [
            DecodeOptions(language=one.language, task=one.task, max_new_tokens=self.max_new_tokens)
            for one in (self._utterances[places[row]] for row in rows)
        ]
        if rows:
            results = self._recognizer.recognize_encoded(encoded[rows], options)
            texts |= {places[row]: result.text for row, result in zip(rows, results, strict=True)}
        return [texts[place] for place in places]

    def _reference(self, place: int) -> str:
        """Give an utterance's labels as a recognizer would have written them."""
        labels = self.labels[place]
        assert labels is not None, "only what has labels can be right"
        return self._recognizer.text(labels.targets[_PREFIX_LENGTH - 1 :])


def plan_batches(durations_s: Sequence[float], context: AudioContext, *, batch_size: int) -> list[list[int]]:
    """Divide utterances into batches of one context each, so that each is read as a recognizer will read it.

    Args:
        durations_s: of all utterances.
        context: says how long a spectrogram each gets.
        batch_size: the most in a batch.

    Returns:
        Places of the utterances; the batches of the longest come first.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for place, duration_s in enumerate(durations_s):
        groups[context.num_frames_for(duration_s)].append(place)
    return [
        places[first : first + batch_size]
        for _, places in sorted(groups.items(), reverse=True)
        for first in range(0, len(places), batch_size)
    ]


def _encode(tokenizer: WhisperTokenizerFast, utterance: Utterance) -> Labels | None:
    try:  # without timestamps only whether there are samples matters
        return encode_example(tokenizer, Example(utterances=(utterance,)), num_samples=[1])
    except LabelTooLongError as error:
        num_tokens, limit, _ = error.args
        raise LabelTooLongError(num_tokens, limit, f"validation utterance {utterance.id}") from error


def _read(utterance: Utterance) -> Waveform:
    return read_audio(utterance.audio, start_s=utterance.start_s, duration_s=utterance.duration_s)
