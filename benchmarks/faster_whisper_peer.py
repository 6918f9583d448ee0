"""faster-whisper with weights of ours: the peer of our engines on a CPU."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Waveform

logger = logging.getLogger(__name__)

_MAX_NEW_TOKENS = DecodeOptions().max_new_tokens  # ours; the peer alone would write up to 448
_MAX_TOKENS_AFTER_TEXT = 448 - 227  # beside the longest prompt of earlier text, 227, the peer refuses more


def convert_checkpoint(checkpoint: Path, output: Path) -> Path:
    """Convert a checkpoint to CTranslate2's format in float32, by CTranslate2's own converter.

    The precision of computing is chosen when the model is loaded.

    Args:
        checkpoint: folder of a checkpoint; an adapter is merged first.
        output: folder that receives the model, and replaces an earlier one.

    Returns:
        ``output``.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
        subprocess.CalledProcessError: CTranslate2 (extra ``benchmarks``) is missing or refuses the checkpoint.
    """
    whole, partial = output.with_name(output.name + ".whole"), output.with_name(output.name + ".partial")
    save_checkpoint(load_checkpoint(checkpoint), whole)
    command = [sys.executable, "-c", "from ctranslate2.converters.transformers import main; main()", "--force"]
    command += ["--model", str(whole), "--output_dir", str(partial)]
    subprocess.run([*command, "--copy_files", "tokenizer.json", "preprocessor_config.json"], check=True)
    shutil.rmtree(whole)
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    logger.info("converted %s to %s", checkpoint, output)
    return output


class FasterWhisper:
    """A converted model, which pads whatever it reads to 30 s, as faster-whisper always does."""

    def __init__(self, folder: Path, *, compute_type: str, num_threads: int) -> None:
        """Load a model on the CPU.

        Args:
            folder: what ``convert_checkpoint`` wrote.
            compute_type: ``float32`` or ``int8``, which quantizes the weights now.
            num_threads: threads of one call.
        """
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        self._model = WhisperModel(str(folder), device="cpu", compute_type=compute_type, cpu_threads=num_threads)
        self._batched = BatchedInferencePipeline(self._model)

    def recognize(
        self,
        waveforms: Sequence[Waveform],
        *,
        batch_size: int,
        beam_size: int,
        language: str = "en",
        long_form: bool = False,
    ) -> list[str]:
        """Transcribe utterances of one language.

        Args:
            waveforms: each (S,) float32, 16 000 Hz.
            batch_size: utterances decoded at once. One at a time has Whisper's fallback to higher temperatures; the
                batched pipeline has none.
            beam_size: texts kept while searching at temperature 0; 1 is greedy.
            language: ISO 639-1 code of the speech.
            long_form: transcribe recordings of any length with times, window after window, one recording at a time.
                Otherwise utterances last 30 s at most and are transcribed without times.

        Returns:
            One text for each waveform.
        """
        if long_form or batch_size == 1:
            return [
                self._recognize_one(one, beam_size=beam_size, language=language, long_form=long_form)
                for one in waveforms
            ]
        return self._recognize_batched(waveforms, batch_size=batch_size, beam_size=beam_size, language=language)

    def _recognize_one(self, waveform: Waveform, *, beam_size: int, language: str, long_form: bool) -> str:
        segments, _ = self._model.transcribe(
            waveform,
            language=language,
            beam_size=beam_size,
            best_of=1,
            temperature=list(FALLBACK_TEMPERATURES),
            condition_on_previous_text=long_form,
            without_timestamps=not long_form,
            max_new_tokens=_MAX_TOKENS_AFTER_TEXT if long_form else _MAX_NEW_TOKENS,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()

    def _recognize_batched(
        self, waveforms: Sequence[Waveform], *, batch_size: int, beam_size: int, language: str
    ) -> list[str]:
        """Hand all utterances over as clips of one recording, which is how the pipeline takes several."""
        ends = np.cumsum([waveform.shape[0] for waveform in waveforms]) / SAMPLING_RATE
        clips = [{"start": float(start), "end": float(end)} for start, end in zip([0.0, *ends[:-1]], ends, strict=True)]
        segments, _ = self._batched.transcribe(
            np.concatenate(waveforms),
            language=language,
            beam_size=beam_size,
            clip_timestamps=clips,
            batch_size=batch_size,
            without_timestamps=True,
            max_new_tokens=_MAX_NEW_TOKENS,
        )
        texts = [""] * len(clips)
        for segment in segments:
            index = int(np.searchsorted(ends, segment.start + 1e-3, side="right"))
            texts[index] = f"{texts[index]} {segment.text.strip()}".strip()
        return texts
