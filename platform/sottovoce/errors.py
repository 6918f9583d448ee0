"""All errors that Sottovoce raises for its users, in one tree.

    SottovoceError
    ├── ConfigError (ValueError)          a setting cannot be used
    │   ├── PrecisionUnavailableError     fp16 or bf16 without the hardware
    │   ├── FourBitUnavailableError       qlora without a CUDA device or bitsandbytes
    │   └── TrackerUnavailableError       a tracker whose package is not installed
    ├── AudioError (ValueError)           one recording cannot be used
    │   ├── AudioDecodeError              unreadable bytes
    │   │   └── AudioExpansionError       bytes that unpack to far more than any recording
    │   ├── EmptyAudioError               readable, zero samples
    │   ├── NonFiniteAudioError           NaN or infinite samples
    │   └── AudioTooLongError             longer than the limit
    ├── StorageError (OSError)            a disk or a server does not answer; no recording is at fault
    │   ├── CheckpointWriteError          storage refused a checkpoint; earlier ones are kept
    │   └── CheckpointCopyError           a checkpoint does not fit on the machine that reads it
    ├── ManifestError (ValueError)        a manifest or corpus cannot be read
    │   └── TooManyRejectsError           more rejects than the job allows
    ├── RowsLostError (RuntimeError)      rows that went into a stage did not come out
    ├── UnsupportedMelBinsError (ValueError)
    ├── ContextError (ValueError)         audio does not fit the model's audio context
    ├── LanguageError (ValueError)        a language Whisper does not know
    ├── LabelTooLongError (ValueError)    a transcript that does not fit the decoder
    ├── CheckpointError (ValueError)      a model folder cannot be loaded or trusted
    │   └── NoGoodCheckpointError         all checkpoints of a run are damaged
    ├── NonFiniteTrainingError (ArithmeticError)  too many steps in a row without a finite loss and gradient
    ├── TrainingMemoryError (MemoryError) a batch does not fit into memory
    ├── StuckWorkerError (RuntimeError)   a training worker hung more often than the run may resume
    ├── TrackerError (RuntimeError)       a tracker's folder or server does not open
    ├── SearchError (RuntimeError)        a hyperparameter search without a result
    ├── WordTimesUnavailableError (ValueError)  word times from graphs exported without cross-attention
    ├── UnsupportedOptionError (ValueError)  an option of decoding that an engine does not have
    └── ExportGateError (RuntimeError)    a variant lost too much accuracy

Fields go to ``super().__init__``, and ``__str__`` builds the sentence: a class that formats in
``__init__`` cannot be unpickled, and Ray then hides the original error.
"""

import errno
from pathlib import Path
from typing import ClassVar


class SottovoceError(Exception):
    """The root of all errors; ``sentence`` is a template for the constructor's arguments."""

    sentence: ClassVar[str] = "{0}"

    def __str__(self) -> str:
        return self.sentence.format(*self.args)


class ConfigError(SottovoceError, ValueError):
    """A setting that cannot be used; the message names it, its value and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class PrecisionUnavailableError(ConfigError):
    """A precision that this machine cannot train in."""

    sentence = "precision {0!r} needs {1}, and none is visible here; use precision=fp32 or auto"

    def __init__(self, precision: str, hardware: str) -> None:
        SottovoceError.__init__(self, precision, hardware)


class FourBitUnavailableError(ConfigError):
    """4-bit base models are not supported on this machine."""

    sentence = (
        "method qlora stores the base model in 4 bits, which needs {0}, and none is visible here; use method=lora, "
        "which trains the same adapter with the base in full precision"
    )

    def __init__(self, missing: str) -> None:
        SottovoceError.__init__(self, missing)


class TrackerUnavailableError(ConfigError):
    """A tracker whose package is not installed here."""

    sentence = (
        "tracker {0!r} needs the package {1}, which is not installed here; "
        "pip install -c constraints.txt -e '.[trackers]' on every node, or leave it out of trackers"
    )

    def __init__(self, tracker: str, package: str) -> None:
        SottovoceError.__init__(self, tracker, package)


class AudioError(SottovoceError, ValueError):
    """A recording that cannot be used."""


class AudioDecodeError(AudioError):
    """Bytes that neither libsndfile nor FFmpeg's libraries can read."""

    sentence = "cannot decode {0}: {1}; send wav, flac, mp3, m4a, ogg or webm"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)


class AudioExpansionError(AudioDecodeError):
    """Bytes that unpack to more than any recording of the allowed duration; raised while decoding, not after."""


class EmptyAudioError(AudioError):
    """A readable container without a single sample."""

    sentence = "{0} holds no samples; record it again or leave it out"

    def __init__(self, source: str) -> None:
        super().__init__(source)


class NonFiniteAudioError(AudioError):
    """Samples that are NaN or infinite."""

    sentence = "{0} holds {1} samples that are NaN or infinite; write it again as 16-bit PCM"

    def __init__(self, source: str, num_samples: int) -> None:
        super().__init__(source, num_samples)


class AudioTooLongError(AudioError):
    """Decoded audio longer than the limit; raised while decoding, not after."""

    sentence = "{0} is longer than the limit of {1:g} s; cut it, or raise the limit"

    def __init__(self, source: str, limit_s: float) -> None:
        super().__init__(source, limit_s)


class StorageError(SottovoceError, OSError):
    """A disk or a server that does not answer or denies access; the rows stored there are not at fault."""

    sentence = "the storage of {0} does not answer: {1}; check that it can be reached, then run the same command again"

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(location, reason)
        self.errno, self.strerror = errno.EIO, reason  # otherwise OSError takes them from its two arguments


class CheckpointWriteError(StorageError):
    """A checkpoint that could not be written; earlier checkpoints are not affected."""

    sentence = (
        "cannot write checkpoint {0}: {1}; the checkpoints before it are kept: run the same command again, and it "
        "resumes from the last of them"
    )


class CheckpointCopyError(StorageError):
    """A checkpoint that could not be copied to the machine that reads it; its storage is not at fault."""

    sentence = (
        "cannot write {0}, this machine's copy of a checkpoint: {1}; free space there, or set TMPDIR on every node to "
        "a folder with room, then run the same command again: the checkpoint itself is not affected"
    )


class ManifestError(SottovoceError, ValueError):
    """A manifest or a corpus folder that cannot be read."""

    sentence = "{0}: {1}"

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)


class TooManyRejectsError(ManifestError):
    """More rejected rows than the job allows."""

    sentence = "{1} of {2} rows were rejected, more than the allowed {3:.1%}; see {0}, or raise max_reject_fraction"

    def __init__(self, path: Path | str, num_rejects: int, num_rows: int, allowed: float) -> None:
        SottovoceError.__init__(self, str(path), num_rejects, num_rows, allowed)


class RowsLostError(SottovoceError, RuntimeError):
    """A stage that returned other rows than it received; a bug in Sottovoce, never in the data."""

    sentence = "stage {0}: {1} rows went in and {2} came out ({3}); nothing was written, please report this"

    def __init__(self, stage: str, num_in: int, num_out: int, difference: str) -> None:
        super().__init__(stage, num_in, num_out, difference)


class UnsupportedMelBinsError(SottovoceError, ValueError):
    """A number of mel bins that no Whisper uses."""

    sentence = "Whisper reads 80 or 128 mel bins, not {0}; take it from the checkpoint's preprocessor_config.json"

    def __init__(self, num_mel_bins: int) -> None:
        super().__init__(num_mel_bins)


class ContextError(SottovoceError, ValueError):
    """Audio longer than a model's longest audio context."""

    sentence = "{0:.2f} s of audio does not fit the model's context of {1:g} s; cut it into windows first"

    def __init__(self, duration_s: float, limit_s: float) -> None:
        super().__init__(duration_s, limit_s)


class LanguageError(SottovoceError, ValueError):
    """A language that the checkpoint's generation config does not list."""

    sentence = "unknown language {0!r}; use an ISO 639-1 code such as 'en', or none to detect it"

    def __init__(self, language: str) -> None:
        super().__init__(language)


class LabelTooLongError(SottovoceError, ValueError):
    """A transcript with more tokens than the decoder has positions."""

    sentence = "the transcript of {2} has {0} tokens with prefix and end token, more than {1}; split the recording"

    def __init__(self, num_tokens: int, limit: int, utterance: str = "this recording") -> None:
        super().__init__(num_tokens, limit, utterance)


class CheckpointError(SottovoceError, ValueError):
    """A model folder that cannot be loaded or trusted."""

    sentence = "cannot use the model in {0}: {1}"

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)


class NoGoodCheckpointError(CheckpointError):
    """A run without a checkpoint that can be trusted; the run never starts over by itself."""

    sentence = (
        "no checkpoint in {0} can be trusted ({1}); restore one from a copy, or remove that folder to start the "
        "run over"
    )


class TrackerError(SottovoceError, RuntimeError):
    """A tracker that does not open when a run starts."""

    sentence = "tracker {0!r} does not open: {1}; check that it can be reached, or leave it out of trackers"

    def __init__(self, tracker: str, reason: str) -> None:
        super().__init__(tracker, reason)


class NonFiniteTrainingError(SottovoceError, ArithmeticError):
    """Too many optimizer steps in a row that were skipped because the loss or gradient was NaN or infinite."""

    sentence = (
        "{1} steps in a row had no finite loss and gradient and were skipped, the last of them step {0}: loss "
        "{2:g}, gradient norm {3:g}, loss scale {4:g}, utterances {5}; lower learning_rate, raise warmup_steps, set "
        "precision to bf16 or fp32, or look into these utterances; then start again in another output folder"
    )

    def __init__(
        self, step: int, num_skipped: int, loss: float, gradient_norm: float, loss_scale: float, examples: str
    ) -> None:
        super().__init__(step, num_skipped, loss, gradient_norm, loss_scale, examples)


class TrainingMemoryError(SottovoceError, MemoryError):
    """A batch that does not fit into the memory of the GPU or the machine."""

    sentence = "out of memory while {0}: {1}; {2} ({3})"

    def __init__(self, doing: str, batch: str, remedy: str, reason: str) -> None:
        super().__init__(doing, batch, remedy, reason)


class StuckWorkerError(SottovoceError, RuntimeError):
    """A training worker that hung and was replaced as often as the settings allow."""

    sentence = (
        "{0}, and the run has resumed {1} times already; check whether that node, its storage and its data can be "
        "reached, raise training.stuck_after_s if such a wait is normal, then run the same command again"
    )

    def __init__(self, worker: str, num_resumed: int) -> None:
        super().__init__(worker, num_resumed)


class SearchError(SottovoceError, RuntimeError):
    """A hyperparameter search without a result."""

    sentence = "only {0} of {1} trials have a result: {2}; the same command continues with the others"

    def __init__(self, num_ended: int, num_trials: int, reason: str) -> None:
        super().__init__(num_ended, num_trials, reason)


class WordTimesUnavailableError(SottovoceError, ValueError):
    """Word times requested from graphs without cross-attention, such as those exported before 2026-11."""

    sentence = (
        "engine {0} has no word times: its graphs were exported without cross-attention; export the checkpoint "
        "again, or use its variant torch"
    )

    def __init__(self, engine: str) -> None:
        super().__init__(engine)


class UnsupportedOptionError(SottovoceError, ValueError):
    """An option of decoding that an engine does not have."""

    sentence = "engine {0} does not support {1}: {2}"

    def __init__(self, engine: str, option: str, remedy: str) -> None:
        super().__init__(engine, option, remedy)


class ExportGateError(SottovoceError, RuntimeError):
    """An exported variant whose error rate rose by more than the bound."""

    sentence = "variant {0} scores {5} {1:.4f} against {2:.4f}, a rise above the bound of {3:.4f}; see {4}"

    def __init__(
        self, variant: str, rate: float, reference: float, bound: float, report: Path | str, metric: str = "WER"
    ) -> None:
        super().__init__(variant, rate, reference, bound, str(report), metric)
