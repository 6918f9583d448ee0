"""The CTranslate2 engine: OpenNMT's C++ decoder, which faster-whisper uses, too.

It generates whole texts itself, so the token rules are its own. They are Whisper's, as ours are: greedy decoding and
beam search of real speech give the same tokens (test_ctranslate2_engine).

Shapes: B batch, R rows, M mel bins, F frames, P positions, T tokens, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import CheckpointError, ConfigError, UnsupportedOptionError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.labels import NUM_TIMESTAMPS
from sottovoce.model.source import read_config, read_generation_config
from sottovoce.model.tokenizer import read_tokenizer
from sottovoce.model.variants import RunDevice
from sottovoce.model.vocabulary import Vocabulary, build_vocabulary
from sottovoce.recognize.batching import EncoderInput, decode_windows
from sottovoce.recognize.decoding.attempt import Attempt, SpokenLanguage, is_search, num_texts
from sottovoce.recognize.decoding.session import Hypothesis, TokenIds, likeliest, log_probabilities
from sottovoce.recognize.longform.transcribe import transcribe
from sottovoce.recognize.steps import BatchDecoding, finish
from sottovoce.schema import (
    FRAMES_PER_SECOND,
    MAX_LABEL_TOKENS,
    POSITIONS_PER_SECOND,
    SAMPLING_RATE,
    DecodeOptions,
    LogMel,
    Waveform,
    WindowResult,
)


class CTranslate2Recognizer:
    """Decode with a CTranslate2 variant on CPU cores or a GPU."""

    transcribe = transcribe

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - ctranslate2 has no types
        *,
        vocabulary: Vocabulary,
        context: AudioContext,
        variant: str,
        max_batch_size: int = 16,
    ) -> None:
        """Wrap a loaded model; ``load_ctranslate2`` loads it from a folder."""
        self._model = model
        self._vocabulary = vocabulary
        self._context = context
        self._variant = variant
        self._max_batch_size = max_batch_size

    @property
    def name(self) -> str:
        """The variant's name, as in ``ct2-int8``."""
        return self._variant

    @property
    def context(self) -> AudioContext:
        """The audio contexts the model was trained on."""
        return self._context

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the model knows."""
        return self._vocabulary.languages

    def recognize(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode windows; see ``Recognizer``. Above temperature 0 each call samples other texts.

        Raises:
            ContextError: a window longer than the longest context.
            LanguageError: a language the model does not know.
            UnsupportedOptionError: a seed: CTranslate2's random numbers cannot be set for a window.
        """
        return finish(self.decode_in_steps(windows, options), num_windows=len(windows))

    def decode_in_steps(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[BatchDecoding]:
        """Prepare to decode windows in steps; see ``Recognizer``. A step generates whole texts of several windows."""
        if any(option.seed for option in options):
            remedy = "its random numbers cannot be set for one window; leave the seed out, or use variant int8 or torch"
            raise UnsupportedOptionError(self.name, "seed", remedy)
        return decode_windows(
            self._open,
            windows,
            options,
            vocabulary=self._vocabulary,
            encoder_input=EncoderInput(context=self._context, num_mel_bins=self._model.n_mels),
            max_batch_size=self._max_batch_size,
        )

    def _open(self, spectrograms: Sequence[LogMel]) -> "_CTranslate2Batch":
        return _CTranslate2Batch(self._model, np.stack(spectrograms), self._vocabulary)


def load_ctranslate2(folder: Path, *, variant: str, num_threads: int, device: RunDevice) -> CTranslate2Recognizer:
    """Load an exported variant: the loader of the CTranslate2 formats in ``FORMATS``.

    Args:
        folder: the variant's folder.
        variant: its name. The precision is the stored one, or the nearest that the device computes in.
        num_threads: CPU threads that one call may use.
        device: ``cpu`` or ``cuda``.

    Raises:
        CheckpointError: a file that is missing or damaged.
        ConfigError: CTranslate2 is not installed, or finds no CUDA device.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise ConfigError(
            f"variant {variant} needs CTranslate2: pip install 'sottovoce[ctranslate2]', or use another variant"
        ) from error
    if device == "cuda" and not ctranslate2.get_cuda_device_count():
        raise ConfigError(f"variant {variant} on device cuda: CTranslate2 finds no CUDA device; use device cpu")
    config, generation = read_config(folder), read_generation_config(folder)
    vocabulary = build_vocabulary(read_tokenizer(folder), generation, source=str(folder))
    try:
        model = ctranslate2.models.Whisper(str(folder), device=device, intra_threads=num_threads, inter_threads=1)
    except (RuntimeError, ValueError) as error:  # what its bindings raise for files that are missing or damaged
        raise CheckpointError(folder, f"{error}; export it again") from error
    context = AudioContext.read(config)
    return CTranslate2Recognizer(model, vocabulary=vocabulary, context=context, variant=variant)


class _CTranslate2Batch:
    """One batch of encoded windows."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - ctranslate2 has no types
        input_features: NDArray[np.float32],
        vocabulary: Vocabulary,
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self.num_generated = 0
        # (B, P, D); in main memory, where rows can be selected, also for a model on a GPU
        self._encoded: NDArray[np.generic] = np.array(model.encode(_view(input_features), to_cpu=True))

    def detect_languages(self) -> list[SpokenLanguage]:
        """Detect the likeliest language of each window."""
        found = self._model.detect_language(_view(self._encoded))
        return [SpokenLanguage(ranked[0][0].strip("<|>"), float(ranked[0][1])) for ranked in found]

    def attempt(
        self,
        rows: Sequence[int],
        prefix: TokenIds,
        options: Sequence[DecodeOptions],
        number: int,
        *,
        cuts_loops: bool = True,
    ) -> Iterator[dict[int, Attempt]]:
        """Decode some of the windows; see ``WindowDecoder``. A step is one call, which writes texts to their ends."""
        del cuts_loops
        groups: dict[tuple[float, float, int, bool], list[int]] = defaultdict(list)
        for index, one in enumerate(options):
            limit = max(0, min(one.max_new_tokens, MAX_LABEL_TOKENS - prefix.shape[1]))
            groups[one.temperatures[number], one.patience, limit, one.token_logprobs].append(index)
        for (_, _, limit, _), indices in groups.items():
            found = self._generate(
                [rows[index] for index in indices], prefix[indices], options[indices[0]], number, limit=limit
            )
            self.num_generated += max(len(text.token_ids) for texts, _ in found for text in texts)
            yield {
                index: Attempt(
                    likeliest(texts, length_penalty=options[index].length_penalty),
                    silence,
                    options[index].temperatures[number],
                )
                for index, (texts, silence) in zip(indices, found, strict=True)
            }

    def _generate(
        self, rows: Sequence[int], prefix: TokenIds, options: DecodeOptions, number: int, *, limit: int
    ) -> list[tuple[list[Hypothesis], float]]:
        """Generate the texts of windows with the same options; return them with the probability of silence."""
        count, searches = num_texts(options, number), is_search(options, number)
        temperature, most = options.temperatures[number], max(1, limit)
        results = self._model.generate(
            _view(self._encoded[list(rows)]),
            prefix.tolist(),
            beam_size=count if searches else 1,
            patience=options.patience if searches else 1,
            num_hypotheses=count,
            length_penalty=0,  # scores are then sums of log-probabilities, and all beams are searched to their end
            max_length=max(
                2 * most, most + prefix.shape[1] - 1
            ),  # counts the prefix, and at most half of it is generated
            return_scores=True,
            return_logits_vocab=options.token_logprobs,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed(timestamps=options.timestamps),
            max_initial_timestamp_index=_initial_index(self._vocabulary),
            sampling_topk=1 if temperature == 0.0 else 0,
            sampling_temperature=1.0 if temperature == 0.0 else temperature,
        )
        if not limit:  # it generates at least one token
            return [([Hypothesis((), ())], float(result.no_speech_prob)) for result in results]
        return [
            (
                [self._hypothesis(result, text, options) for text in range(len(result.sequences_ids))],
                float(result.no_speech_prob),
            )
            for result in results
        ]

    def _hypothesis(self, result: Any, text: int, options: DecodeOptions) -> Hypothesis:  # noqa: ANN401
        token_ids = tuple(token for token in result.sequences_ids[text] if token != self._vocabulary.end_id)
        if not options.token_logprobs:
            return Hypothesis(token_ids, (), known_sum=float(result.scores[text]))
        logits = np.array([np.array(step) for step in result.logits[text]], dtype=np.float32)[: len(token_ids)]
        found = log_probabilities(logits, np.array(token_ids)) if len(token_ids) else np.zeros(0)
        return Hypothesis(token_ids, tuple(found.tolist()), known_sum=float(result.scores[text]))

    def _suppressed(self, *, timestamps: bool) -> list[int]:
        """Return the tokens that are never generated. It suppresses those of the first token by its own config."""
        penalties = self._vocabulary.penalties(self._vocabulary.kinds.timestamps_to, timestamps=timestamps, first=False)
        return [int(token) for token in np.flatnonzero(np.isneginf(penalties))]

    def time_tokens(
        self, row: int, prefix: list[int], text_ids: list[int], *, num_samples: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Time the tokens of one window's text by CTranslate2's own alignment; see ``TokenTimer``."""
        no_timestamps = self._vocabulary.kinds.timestamps_from - 1  # CTranslate2 adds it to the prefix
        num_frames = max(2, num_samples * FRAMES_PER_SECOND // SAMPLING_RATE)
        (found,) = self._model.align(
            _view(self._encoded[row : row + 1]),
            [token for token in prefix if token != no_timestamps],
            [text_ids],
            [num_frames],
        )
        starts = np.zeros(len(text_ids) + 1)
        for token, position in reversed(found.alignments):  # the first position of each token remains
            starts[token] = position / POSITIONS_PER_SECOND
        limit_s = num_samples / SAMPLING_RATE
        probabilities = np.array(found.text_token_probs[: len(text_ids)], dtype=np.float32)
        return np.maximum.accumulate(starts).clip(max=limit_s), probabilities


def _initial_index(vocabulary: Vocabulary) -> int:
    index = vocabulary.max_initial_timestamp_index
    return NUM_TIMESTAMPS - 1 if index is None else index


def _view(values: NDArray[Any]) -> Any:  # noqa: ANN401 - ctranslate2 has no types
    """Return CTranslate2's view of an array's memory; the array must outlive it."""
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(values))
