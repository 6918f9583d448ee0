"""Measure the model in training on the validation split: every rank decodes its share, every rank gets the scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from sottovoce.audio.decode import read_audio
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.labels import encode_example
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import MAX_LABEL_TOKENS, DecodeOptions, Example, Utterance, Waveform
from sottovoce.text.group_score import GroupScore, score_utterances
from sottovoce.text.normalize import Normalizer
from sottovoce.text.score import Score
from sottovoce.train.collate import Collator, TrainBatch
from sottovoce.train.objective import WhisperObjective

_PREFIX_LENGTH = 4  # start, language, task, no-timestamps
_MARGIN = 1.5  # a hypothesis may grow to this many times the longest reference; untrained models write on and on


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
        """
        by_duration = sorted(range(len(utterances)), key=lambda place: -utterances[place].duration_s)
        self._utterances = utterances
        self._share = by_duration[accelerator.process_index :: accelerator.num_processes]
        self._accelerator = accelerator
        self._batch_size = batch_size
        self._normalizer = normalizer
        self._spelling = spelling
        self._collator = collator
        self._labels = {  # without timestamps only whether there are samples matters
            place: encode_example(checkpoint.tokenizer, Example(utterances=(utterance,)), num_samples=[1])
            for place, utterance in enumerate(utterances)
        }
        longest = max(len(labels.inputs) + 1 for labels in self._labels.values() if labels)
        self._max_new_tokens = min(MAX_LABEL_TOKENS - _PREFIX_LENGTH, int(_MARGIN * longest))
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision)
        self._recognizer = TorchRecognizer(checkpoint, autocast=dtype, max_batch_size=batch_size)

    def evaluate(self, objective: WhisperObjective) -> Evaluation:
        """Measure loss, WER and CER over the whole split, and over its corpora and languages.

        Raises:
            AudioError: a validation recording that cannot be decoded.
        """
        objective.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self._accelerator.device)
        hypotheses: list[tuple[int, str]] = []
        for start in range(0, len(self._share), self._batch_size):
            places = self._share[start : start + self._batch_size]
            waveforms = [_read(self._utterances[place]) for place in places]
            batch = self._collator.validation_batch(waveforms, [self._labels[place] for place in places])
            sums += self._sum_loss(objective, batch)
            hypotheses += zip(places, self._recognize(places, waveforms), strict=True)
        objective.train()
        sums = self._accelerator.reduce(sums)
        texts = dict(gather_object(hypotheses))
        scored = score_utterances(
            self._utterances,
            [texts[place] for place in range(len(self._utterances))],
            normalizer=self._normalizer,
            spelling=self._spelling,
        )
        return Evaluation(validation_loss=float(sums[0] / sums[1]), score=scored.score, groups=scored.groups)

    def _sum_loss(self, objective: WhisperObjective, batch: TrainBatch) -> torch.Tensor:
        device = self._accelerator.device
        with torch.no_grad(), self._accelerator.autocast():
            loss = objective(
                batch.input_features.to(device), batch.decoder_input_ids.to(device), batch.labels.to(device)
            )
        return torch.stack([loss.total, loss.num_labels]).double()

    def _recognize(self, places: Sequence[int], waveforms: Sequence[Waveform]) -> list[str]:
        chosen = [self._utterances[place] for place in places]
        options = [
            DecodeOptions(language=one.language, task=one.task, max_new_tokens=self._max_new_tokens) for one in chosen
        ]
        return [result.text for result in self._recognizer.recognize(waveforms, options)]


def _read(utterance: Utterance) -> Waveform:
    return read_audio(utterance.audio, start_s=utterance.start_s, duration_s=utterance.duration_s)
