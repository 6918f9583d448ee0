"""faster-whisper behind a small web app: ``python -m benchmarks.faster_whisper_app --folder FOLDER --port 9000``.

What people write who serve faster-whisper themselves: an upload is decoded and transcribed in a thread of the web
server, one request for one call. CTranslate2 lets calls wait for each other.
"""

from io import BytesIO
from pathlib import Path

import uvicorn
from fastapi import FastAPI, UploadFile
from faster_whisper import decode_audio

from benchmarks.faster_whisper_peer import FasterWhisper
from sottovoce.config import Config, load_config

_BATCH_SIZE = 8


class AppConfig(Config):
    """A model and where it is served."""

    folder: Path
    """A model in CTranslate2's format."""
    port: int
    num_threads: int = 2
    batched: bool = False
    """Whether requests go through BatchedInferencePipeline, which has no temperature fallback."""


def build(config: AppConfig) -> FastAPI:
    """Load the model and return the app."""
    model = FasterWhisper(config.folder, compute_type="int8", num_threads=config.num_threads)
    app = FastAPI()

    @app.post("/v1/audio/transcriptions")
    def transcribe(file: UploadFile) -> dict[str, str]:
        waveform = decode_audio(BytesIO(file.file.read()))
        (text,) = model.recognize([waveform], batch_size=_BATCH_SIZE if config.batched else 1, beam_size=1)
        return {"text": text}

    return app


if __name__ == "__main__":
    settings = load_config(AppConfig)
    uvicorn.run(build(settings), host="127.0.0.1", port=settings.port, log_level="warning")
