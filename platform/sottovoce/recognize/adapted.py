"""The torch engine for many adapters on one base, whose weights are in memory once."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Adapted, Checkpoint
from sottovoce.model.shared_base import SharedBase
from sottovoce.recognize.longform.transcribe import transcribe
from sottovoce.recognize.steps import BatchDecoding, steps_within
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, Waveform, WindowResult


class AdaptedRecognizer:
    """Decode with one adapter of a shared base, or with the base itself. Calls on one base take turns."""

    transcribe = transcribe

    def __init__(
        self,
        shared: SharedBase,
        checkpoint: Checkpoint,
        adapter: str | None,
        *,
        num_threads: int,
        assistant: Checkpoint | None,
    ) -> None:
        """Wrap a shared base; use ``share_base`` or ``share_adapter``."""
        self.shared = shared
        self._adapter = adapter
        with shared.using(adapter):
            self._engine = TorchRecognizer(checkpoint, num_threads=num_threads, assistant=assistant)
            self._context = self._engine.context

    @property
    def name(self) -> str:
        """``torch``, or ``torch-adapter``."""
        return self._engine.name if self._adapter is None else f"{self._engine.name}-adapter"

    @property
    def context(self) -> AudioContext:
        """The audio contexts the adapter, or the base, was trained on."""
        return self._context

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the model knows."""
        return self._engine.languages

    def recognize(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode windows; see ``Recognizer`` and ``TorchRecognizer``."""
        with self.shared.using(self._adapter):
            return self._engine.recognize(windows, options)

    def decode_in_steps(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[BatchDecoding]:
        """Prepare to decode windows in steps; see ``Recognizer``. Each step chooses the adapter."""

        def use() -> AbstractContextManager[None]:
            return self.shared.using(self._adapter)

        with use():
            return [steps_within(use, decoding) for decoding in self._engine.decode_in_steps(windows, options)]

    def close(self) -> None:
        """Remove the adapter from the base's layers. The recognizer cannot be used afterwards."""
        if self._adapter is not None:
            self.shared.remove(self._adapter)


def share_base(shared: SharedBase, *, num_threads: int, assistant: Checkpoint | None = None) -> AdaptedRecognizer:
    """Build a recognizer of the base itself; for the arguments see ``share_adapter``."""
    return AdaptedRecognizer(shared, shared.checkpoint, None, num_threads=num_threads, assistant=assistant)


def share_adapter(
    shared: SharedBase, adapted: Adapted, *, num_threads: int, assistant: Checkpoint | None = None
) -> AdaptedRecognizer:
    """Add an adapter to a shared base and build its recognizer.

    Args:
        shared: the base.
        adapted: the adapter's files, from ``find_adapted`` with this base.
        num_threads: CPU threads that one call may use.
        assistant: a smaller model that drafts tokens; see ``speculative``.

    Raises:
        CheckpointError: its files are missing or damaged, or do not fit the base.
    """
    name, checkpoint = shared.add(adapted)
    try:
        return AdaptedRecognizer(shared, checkpoint, name, num_threads=num_threads, assistant=assistant)
    except BaseException:
        shared.remove(name)  # no one else knows its name
        raise
