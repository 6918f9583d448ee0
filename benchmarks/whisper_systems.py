"""Models before and after fine-tuning, in our engines, faster-whisper and openai-whisper, behind one call."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from benchmarks.faster_whisper_peer import FasterWhisper
from benchmarks.openai_whisper import OpenAIWhisper
from sottovoce.audio.silence import window_spans
from sottovoce.errors import ConfigError
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES, LongFormOptions
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import DecodeOptions, Waveform

ModelName: TypeAlias = Literal["base", "fine-tuned"]
Engine: TypeAlias = Literal["sottovoce", "faster-whisper", "openai-whisper"]
LongForm: TypeAlias = Literal["chunked", "sequential"]

_MODULES: Mapping[Engine, str] = {"faster-whisper": "faster_whisper", "openai-whisper": "whisper"}
"""Of the engines that are packages of others."""


@dataclass(frozen=True, kw_only=True)
class ModelFolders:
    """Where one model lies in each format."""

    checkpoint: Path
    export: Path
    converted: Path
    """In CTranslate2's format."""

    @property
    def fingerprint(self) -> str:
        """Size and time of the weights: other weights have another one."""
        found = sorted(self.checkpoint.glob("*.safetensors"))
        return " ".join(f"{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in found)


@dataclass(frozen=True, kw_only=True)
class System:
    """A model in an engine."""

    model: ModelName
    engine: Engine
    variant: str
    """Of ours torch, fp32 (ONNX) or int8 (ONNX); of faster-whisper float32 or int8; of openai-whisper float32."""
    beam_size: int = 1
    long_form: LongForm | None = None
    """Algorithm that transcribes recordings of any length, with times; the peers have sequential alone. None for
    windows of at most 30 s, without times."""

    @property
    def name(self) -> str:
        """What files call it."""
        beams = f"-beam{self.beam_size}" if self.beam_size > 1 else ""
        long_form = f"-{self.long_form}" if self.long_form else ""
        return f"{self.model}-{self.engine}-{self.variant}{beams}{long_form}"

    def describe(self) -> dict[str, object]:
        """Return what a row of a result says of it."""
        beams = {"beam_size": self.beam_size} if self.beam_size > 1 else {}
        long_form = {"long_form": self.long_form} if self.long_form else {}
        return {"model": self.model, "engine": self.engine, "variant": self.variant, **beams, **long_form}


class Recognize(Protocol):
    """A loaded system."""

    def __call__(self, waveforms: Sequence[Waveform], *, batch_size: int, language: str = "en") -> list[str]:
        """Transcribe utterances (S,) of one language, ``batch_size`` windows at a time.

        They last 30 s at most, unless the system has a long form.
        """
        ...


def require_engines(systems: Iterable[System]) -> None:
    """Check that the peers are installed.

    Raises:
        ConfigError: one is missing.
    """
    for engine in dict.fromkeys(system.engine for system in systems):
        if engine in _MODULES and find_spec(_MODULES[engine]) is None:
            raise ConfigError(f"{engine} is missing: pip install -c constraints.txt -e '.[benchmarks]'")


def load_system(system: System, folders: Mapping[ModelName, ModelFolders], *, num_threads: int) -> Recognize:
    """Load a model into an engine, on the CPU.

    All decode alike: greedily unless the system has beams, then at Whisper's higher temperatures while a text repeats
    itself or is unlikely, at most as many tokens. They write times in their long forms alone, which keep each engine's
    own settings: ours leaves out windows without speech.

    Args:
        system: which.
        folders: of each model.
        num_threads: threads of one call.

    Raises:
        CheckpointError: a file that is missing or damaged.
        ConfigError: a peer with an algorithm that it does not have.
    """
    where = folders[system.model]
    if system.engine == "sottovoce":
        folder = where.checkpoint if system.variant == "torch" else where.export
        return _load_ours(system, load_recognizer(folder, variant=system.variant, num_threads=num_threads))
    if system.long_form == "chunked":
        raise ConfigError(f"{system.engine} has no chunked algorithm; set long_form to sequential or None")
    if system.engine == "faster-whisper":
        return _load_faster_whisper(system, where.converted, num_threads=num_threads)
    return _load_openai_whisper(system, where.checkpoint, num_threads=num_threads)


def _load_ours(system: System, recognizer: Recognizer) -> Recognize:
    def recognize(waveforms: Sequence[Waveform], *, batch_size: int, language: str = "en") -> list[str]:
        if system.long_form is None:
            options = DecodeOptions(language=language, temperatures=FALLBACK_TEMPERATURES, beam_size=system.beam_size)
            return _recognize_windows(recognizer, waveforms, options, batch_size=batch_size)
        long_form = LongFormOptions(algorithm=system.long_form)
        return [
            recognizer.transcribe(
                one, language=language, beam_size=system.beam_size, long_form=long_form, batch_size=batch_size
            ).text
            for one in waveforms
        ]

    return recognize


def _load_faster_whisper(system: System, folder: Path, *, num_threads: int) -> Recognize:
    peer = FasterWhisper(folder, compute_type=system.variant, num_threads=num_threads)

    def recognize(waveforms: Sequence[Waveform], *, batch_size: int, language: str = "en") -> list[str]:
        return peer.recognize(
            waveforms,
            batch_size=batch_size,
            beam_size=system.beam_size,
            language=language,
            long_form=system.long_form is not None,
        )

    return recognize


def _load_openai_whisper(system: System, checkpoint: Path, *, num_threads: int) -> Recognize:
    peer = OpenAIWhisper(checkpoint, num_threads=num_threads)

    def recognize(waveforms: Sequence[Waveform], *, batch_size: int, language: str = "en") -> list[str]:
        return peer.recognize(
            waveforms, beam_size=system.beam_size, language=language, long_form=system.long_form is not None
        )

    return recognize


def _recognize_windows(
    recognizer: Recognizer, waveforms: Sequence[Waveform], options: DecodeOptions, *, batch_size: int
) -> list[str]:
    """Cut what is longer than the model's context at silences, recognize, and join each utterance's windows."""
    windows = [
        (index, waveform[start:end])
        for index, waveform in enumerate(waveforms)
        for start, end in window_spans(waveform, max_window_s=recognizer.context.max_s)
    ]
    texts = [""] * len(waveforms)
    for first in range(0, len(windows), batch_size):
        batch = windows[first : first + batch_size]
        results = recognizer.recognize([window for _, window in batch], [options] * len(batch))
        for (index, _), result in zip(batch, results, strict=True):
            texts[index] = f"{texts[index]} {result.text}".strip()
    return texts
