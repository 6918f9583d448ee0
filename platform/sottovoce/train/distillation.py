"""Self-distillation: a Whisper learns to read trimmed contexts as it reads 30 s.

Stock Whisper has only ever read 30 s. Read at the speech's own length, it loops and invents: whisper-base has a WER of
some 285 % then. The student here is the model itself, the teacher its unchanged encoder, which reads the longest
context. Both run the same frozen decoder on the same text, and the student's encoder is changed until the decoder's
last states and its distribution over the next token are the teacher's. No transcripts of people are needed: the text is
the teacher's own.

Source: audio-context fine-tuning (futo-org/whisper-acft) compares the last decoder states alone; here the distribution
over tokens is compared, too.

Shapes: B batch, M mel bins, F frames, T tokens, N labels that count, P positions, D model width, V vocabulary.
"""

import torch
from torch import Tensor, nn

from sottovoce.model.context import TrimmedWhisper
from sottovoce.schema import FRAMES_PER_SECOND
from sottovoce.train.batches import find_label_indices
from sottovoce.train.objective import LossSum, WhisperObjective, pad_frames

_LONGEST_MARGIN_S = 1.0
"""A context in training holds up to this much silence after the batch's longest speech."""


class DistillationObjective(WhisperObjective):
    """Difference of a student from its teacher, summed over the labels that count.

    It is the Kullback-Leibler divergence of the student's distribution from the teacher's, plus the mean squared
    difference of their last decoder states. In evaluation the loss is the cross entropy of every other objective.
    """

    def __init__(self, whisper: TrimmedWhisper, teacher: TrimmedWhisper, *, padded_probability: float) -> None:
        """Pair a model with its teacher.

        Args:
            whisper: the student; its decoder serves both.
            teacher: the base model, of which the encoder is kept. It reads its longest context.
            padded_probability: fraction of the training batches that the student reads at the longest context, too, so
                that it stays good there.
        """
        super().__init__(whisper, padded_probability=padded_probability)
        self._longest_input = round(teacher.audio_context.max_s * FRAMES_PER_SECOND)
        self._teacher = teacher.model.encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> "DistillationObjective":
        """Switch the student's mode; the teacher never has dropout."""
        super().train(mode)
        self._teacher.train(mode=False)
        return self

    def forward(
        self, input_features: Tensor, decoder_input_ids: Tensor, labels: Tensor, label_indices: Tensor | None = None
    ) -> LossSum:
        """Compute the loss; see ``WhisperObjective``. The labels only say which positions count."""
        indices = find_label_indices(labels) if label_indices is None else label_indices
        padded = pad_frames(input_features, self._longest_input, padding=self._padding)
        with torch.no_grad():
            wanted_states = self._decode(self._teacher(padded).last_hidden_state, decoder_input_ids, indices)
            wanted = nn.functional.log_softmax(self.whisper.proj_out(wanted_states).float(), dim=1)
        features = padded if self._is_padded() else self._with_margin(input_features)
        states = self._decode(self.whisper.model.encoder(features).last_hidden_state, decoder_input_ids, indices)
        written = nn.functional.log_softmax(self.whisper.proj_out(states).float(), dim=1)
        divergence = nn.functional.kl_div(written, wanted, reduction="sum", log_target=True)
        distance = (states.float() - wanted_states.float()).square().mean(dim=1).sum()
        return LossSum(divergence + distance, torch.full((), float(len(indices)), device=divergence.device))

    def _decode(self, encoded: Tensor, decoder_input_ids: Tensor, label_indices: Tensor) -> Tensor:
        """Return the decoder's last states (N, D) at the labels that count."""
        output = self.whisper.model.decoder(input_ids=decoder_input_ids, encoder_hidden_states=encoded, use_cache=False)
        states: Tensor = output.last_hidden_state.flatten(0, 1).index_select(0, label_indices)
        return states

    def _with_margin(self, input_features: Tensor) -> Tensor:
        """Append up to a second of silence, so that the student does not depend on where a context ends."""
        margin = 2 * int(torch.randint(round(_LONGEST_MARGIN_S * FRAMES_PER_SECOND) // 2 + 1, ()))
        num_frames = min(input_features.shape[2] + margin, self._longest_input)
        return pad_frames(input_features, num_frames, padding=self._padding)
