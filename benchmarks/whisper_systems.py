"""Models before and after fine-tuning, in our engines and in faster-whisper, behind one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from benchmarks.faster_whisper_peer import FasterWhisper
from sottovoce.audio.silence import window_spans
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import DecodeOptions, Waveform

ModelName: TypeAlias = Literal["base", "fine-tuned"]
Engine: TypeAlias = Literal["sottovoce", "faster-whisper"]


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
    """Of ours torch, fp32 (ONNX) or int8 (ONNX); of faster-whisper float32 or int8."""
    beam_size: int = 1

    @property
    def name(self) -> str:
        """What files call it."""
        beams = f"-beam{self.beam_size}" if self.beam_size > 1 else ""
        return f"{self.model}-{self.engine}-{self.variant}{beams}"

    def describe(self) -> dict[str, object]:
        """Return what a row of a result says of it."""
        beams = {"beam_size": self.beam_size} if self.beam_size > 1 else {}
        return {"model": self.model, "engine": self.engine, "variant": self.variant, **beams}


class Recognize(Protocol):
    """A loaded system."""

    def __call__(self, waveforms: Sequence[Waveform], *, batch_size: int) -> list[str]:
        """Transcribe English utterances (S,) of at most 30 s, ``batch_size`` at a time."""
        ...


def load_system(system: System, folders: Mapping[ModelName, ModelFolders], *, num_threads: int) -> Recognize:
    """Load a model into an engine, on the CPU.

    All decode alike: greedily unless the system has beams, then at Whisper's higher temperatures while a text repeats
    itself or is unlikely, at most as many tokens, without times.

    Args:
        system: which.
        folders: of each model.
        num_threads: threads of one call.

    Raises:
        CheckpointError: a file that is missing or damaged.
    """
    where = folders[system.model]
    if system.engine == "faster-whisper":
        peer = FasterWhisper(where.converted, compute_type=system.variant, num_threads=num_threads)

        def recognize_by_peer(waveforms: Sequence[Waveform], *, batch_size: int) -> list[str]:
            return peer.recognize(waveforms, batch_size=batch_size, beam_size=system.beam_size)

        return recognize_by_peer
    folder = where.checkpoint if system.variant == "torch" else where.export
    ours = load_recognizer(folder, variant=system.variant, num_threads=num_threads)
    options = DecodeOptions(language="en", temperatures=FALLBACK_TEMPERATURES, beam_size=system.beam_size)

    def recognize_by_us(waveforms: Sequence[Waveform], *, batch_size: int) -> list[str]:
        return _recognize_windows(ours, waveforms, options, batch_size=batch_size)

    return recognize_by_us


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
