"""Ask a running service for transcripts, as its users do: over HTTP, with OpenAI's client."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI
from rich.progress import track

from sottovoce.schema import Utterance


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request: what was said, what came back, and how long it took."""

    reference: str
    transcript: str
    latency_ms: float
    """From the call to the parsed answer, upload included."""


def ask_service(base_url: str, utterances: Sequence[Utterance], *, model: str, api_key: str = "none") -> list[Answer]:
    """Transcribe utterances one after the other.

    Raises:
        openai.APIError: an answer that is an error, or none.
    """
    client = OpenAI(base_url=base_url, api_key=api_key)
    answers = []
    for utterance in track(utterances, description="requests"):
        started = time.perf_counter()
        transcription = client.audio.transcriptions.create(
            model=model, file=Path(utterance.audio), language=utterance.language
        )
        latency_ms = 1_000 * (time.perf_counter() - started)
        answers.append(Answer(reference=utterance.text, transcript=transcription.text, latency_ms=latency_ms))
    return answers
