"""The HTTP side: limits, checks, and a recording spread as windows over the transcriber replicas."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from serve.api import Health, Model, ModelList
from serve.edge import Edge
from serve.errors import DeadlineError, ModelNotFoundError, OverloadedError
from serve.fields import TranscriptionFields, parse_fields
from serve.formats import format_transcript
from serve.keys import read_api_keys
from serve.problems import problem_response
from serve.served_model import ServedModel
from serve.settings import Limits
from serve.transcript import Transcript, transcribe_recording
from serve.upload import read_form
from serve.windows import TranscriberHandle

_log = logging.getLogger(__name__)


class Gateway:
    """Answers OpenAI's audio API. Plain: ``app.py`` makes a deployment of it."""

    def __init__(
        self, transcriber: TranscriberHandle, *, model_names: Sequence[str], limits: Limits, api_keys_env: str | None
    ) -> None:
        """Prepare the application; nothing is sent to the transcriber before the application starts.

        Args:
            transcriber: the deployment that decodes windows.
            model_names: names of the one served model.
            limits: what requests may take.
            api_keys_env: environment variable with the accepted keys; None lets everyone in.

        Raises:
            ConfigError: a variable without keys.
        """
        self._transcriber = transcriber
        self._model_names = tuple(model_names)
        self._limits = limits
        self._keys = read_api_keys(api_keys_env)
        self._decoders = ThreadPoolExecutor(limits.num_decoders, thread_name_prefix="decode")
        self._num_open = 0
        self._num_working = 0
        self._created = int(time.time())
        self._served: ServedModel | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application, for Serve."""
        return self.build_api()

    def build_api(self) -> FastAPI:
        """Build the FastAPI application; it has no documentation pages, so every path but /healthz wants the key."""
        api = FastAPI(title="Sottovoce", lifespan=self._lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        api.post("/v1/audio/transcriptions", response_model=None)(self.create_transcription)
        api.get("/v1/models")(self.list_models)
        api.get("/v1/models/{model_id:path}")(self.get_model)
        api.get("/healthz")(self.get_health)
        api.exception_handler(HTTPException)(_answer_refused)
        api.exception_handler(RequestValidationError)(_answer_refused)
        api.add_middleware(Edge, keys=self._keys)
        return api

    async def create_transcription(self, request: Request) -> Response:
        """``POST /v1/audio/transcriptions``."""
        try:
            async with asyncio.timeout(self._limits.deadline_s) as deadline:
                return await self._transcribe(request)
        except TimeoutError as error:
            if deadline.expired():
                raise DeadlineError(self._limits.deadline_s) from error
            raise

    async def list_models(self) -> ModelList:
        """``GET /v1/models``."""
        return ModelList(data=[Model(id=name, created=self._created) for name in self._model_names])

    async def get_model(self, model_id: str) -> Model:
        """``GET /v1/models/{id}``."""
        self._check_model(model_id)
        return Model(id=model_id, created=self._created)

    async def get_health(self) -> Health:
        """``GET /healthz``: this replica runs, and a transcriber has been ready."""
        return Health()

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Wait for a transcriber, so that a gateway that is ready can answer."""
        served: ServedModel = await self._transcriber.describe.remote()
        self._served = served
        _log.info("serving %s as %s", served.name, ", ".join(self._model_names))
        yield
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _transcribe(self, request: Request) -> Response:
        served = self._served
        assert served is not None, "the application has not been started"
        with self._hold_upload():
            async with read_form(request, max_body_bytes=self._limits.max_body_bytes) as form:
                fields = parse_fields(form, languages=served.language_names)
                self._check_model(fields.model)
                with self._hold_work():
                    started = time.monotonic()
                    transcript = await self._hear(fields, served)
        _log.info(
            "request %s: %.1f s of audio, %d windows, %.2f s",
            request.state.request_id,
            transcript.duration_s,
            len(transcript.windows),
            time.monotonic() - started,
        )
        return format_transcript(transcript, fields.response_format, language_names=served.language_names)

    async def _hear(self, fields: TranscriptionFields, served: ServedModel) -> Transcript:
        return await transcribe_recording(
            await fields.file.read(),
            handle=self._transcriber,
            served=served,
            language=fields.language,
            max_duration_s=self._limits.max_duration_s,
            max_windows_in_flight=self._limits.max_windows_in_flight,
            decoders=self._decoders,
        )

    def _check_model(self, name: str) -> None:
        if name not in self._model_names:
            raise ModelNotFoundError(name)

    @contextmanager
    def _hold_upload(self) -> Iterator[None]:
        """Count a request from its first byte; where work is already at its limit, refuse before the upload."""
        if self._num_open >= self._limits.max_uploads:
            raise OverloadedError(self._limits.max_uploads)
        self._check_room_for_work()
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1

    @contextmanager
    def _hold_work(self) -> Iterator[None]:
        """Count a request while its audio is in memory: slow uploads wait outside."""
        self._check_room_for_work()
        self._num_working += 1
        try:
            yield
        finally:
            self._num_working -= 1

    def _check_room_for_work(self) -> None:
        if self._num_working >= self._limits.max_concurrent_requests:
            raise OverloadedError(self._limits.max_concurrent_requests)


async def _answer_refused(request: Request, error: Exception) -> JSONResponse:
    """Answer what FastAPI refuses by itself, in the same shape as everything else."""
    return problem_response(error, request_id=request.state.request_id)
