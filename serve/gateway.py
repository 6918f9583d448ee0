"""The gateway: HTTP routes, limits, and a recording split into windows for the transcriber replicas."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from serve.errors import InvalidRequestError, NotReadyError, shown
from serve.http.admission import Admission
from serve.http.api import Health, Model, ModelList, Readiness
from serve.http.deadline import Deadline
from serve.http.edge import DOCS_FILES, Edge
from serve.http.events import EventStream, transcript_events
from serve.http.formats import format_transcript
from serve.http.forms import TranscriptionForm, TranslationForm
from serve.http.keys import read_api_keys
from serve.http.openapi import RouteDocs, install_schema, json_docs, speech_docs
from serve.http.problems import problem_response
from serve.http.speech_request import SpeechRequest, read_transcription, read_translation
from serve.http.upload import read_form
from serve.models.catalog import Catalog
from serve.models.model_plan import ModelSource
from serve.models.served_model import ServedModel
from serve.replica_log import join_replica_log
from serve.settings import Limits
from serve.transcript import Transcription, transcribe_recording
from serve.windows import TranscriberHandle, describe_model, send_window
from sottovoce.recognize.longform.options import LongFormOptions

_READY_TIMEOUT_S = 5.0  # a replica answers between two batches, and a batch of int8 windows takes one second (guess)

_log = logging.getLogger(__name__)


class Route(NamedTuple):
    """One route of the API."""

    method: str
    path: str
    handler: str
    """Name of the method of ``Gateway`` that answers it."""
    docs: RouteDocs
    """Its form, responses and description in the schema."""
    needs_key: bool = True
    """False for probes, which carry no key."""


ROUTES = (
    Route("POST", "/v1/audio/transcriptions", "create_transcription", speech_docs(TranscriptionForm)),
    Route("POST", "/v1/audio/translations", "create_translation", speech_docs(TranslationForm)),
    Route(
        "GET",
        "/v1/models",
        "list_models",
        json_docs(ModelList, 401, 500, description="Every model, variant and alias that can be named."),
    ),
    Route("GET", "/v1/models/{model_id:path}", "get_model", json_docs(Model, 401, 404, 500, description="The model.")),
    Route("GET", "/healthz", "get_health", json_docs(Health, description="The gateway runs."), needs_key=False),
    Route(
        "GET",
        "/readyz",
        "get_readiness",
        json_docs(Readiness, 503, description="A transcriber answers."),
        needs_key=False,
    ),
)
"""Every route. To add one, write its handler below and its wire models in ``http/api.py``."""


class Gateway:
    """Answer OpenAI's audio API. A plain class: ``app.py`` wraps it in a deployment."""

    def __init__(
        self,
        transcriber: TranscriberHandle,
        *,
        source: ModelSource,
        limits: Limits,
        api_keys_env: str | None,
        long_form: LongFormOptions | None = None,
    ) -> None:
        """Prepare the application. Nothing is sent to a transcriber before the application starts.

        Args:
            transcriber: the deployment that decodes windows.
            source: the model repository.
            limits: limits of one request, and of all together.
            api_keys_env: environment variable with the accepted keys; None accepts every request.
            long_form: how long recordings are split unless the request says; None for the defaults.

        Raises:
            ConfigError: the variable holds no key.
        """
        join_replica_log()
        self._transcriber = transcriber
        self._catalog = Catalog(transcriber, source)
        self._limits = limits
        self._long_form = long_form or LongFormOptions()
        self._keys = read_api_keys(api_keys_env)
        self._decoders: ThreadPoolExecutor | None = None
        self._admission = Admission(
            max_uploads=limits.max_uploads,
            max_working=limits.max_concurrent_requests,
            max_per_client=limits.max_requests_per_key,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application, for Serve."""
        return self.build_api(is_behind_serve=True)

    def build_api(self, *, is_behind_serve: bool = False) -> FastAPI:
        """Build the FastAPI application.

        Args:
            is_behind_serve: whether Serve's proxy forwards the requests.
        """
        application = FastAPIOffline(
            title="Sottovoce", lifespan=self._lifespan, redoc_url=None, static_url=DOCS_FILES.rstrip("/")
        )
        for route in ROUTES:
            handler = getattr(self, route.handler)
            application.add_api_route(route.path, handler, methods=[route.method], **route.docs)
        application.exception_handler(HTTPException)(_answer_refused)
        public = [route.path for route in ROUTES if not route.needs_key]
        application.add_middleware(Edge, keys=self._keys, public_paths=public, is_behind_serve=is_behind_serve)
        install_schema(application, wants_keys=self._keys.are_wanted)
        return application

    async def create_transcription(self, request: Request) -> Response:
        """Transcribe a recording in the language that is spoken."""
        return await self._answer(request, read_transcription)

    async def create_translation(self, request: Request) -> Response:
        """Translate a recording into English text."""
        return await self._answer(request, read_translation)

    async def list_models(self) -> JSONResponse:
        """List the models."""
        models = ModelList(data=[Model(id=model.id, created=model.created) for model in self._catalog.listed()])
        return JSONResponse(models.model_dump())

    async def get_model(self, model_id: str) -> JSONResponse:
        """Return one model. A slash in its id may be sent as it is or as ``%2F``."""
        return JSONResponse(Model(id=model_id, created=self._catalog.created(model_id)).model_dump())

    async def get_health(self) -> JSONResponse:
        """Report that this gateway runs."""
        return JSONResponse(Health().model_dump())

    async def get_readiness(self) -> JSONResponse:
        """Report whether requests can be answered now.

        Raises:
            NotReadyError: no transcriber answered in time.
            ModelLoadError, OverloadedError, TranscriberLostError: see ``Catalog.find_default``.
        """
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                served = await self._catalog.find_default()
                await describe_model(self._transcriber, served.key)
        except TimeoutError as error:
            raise NotReadyError(_READY_TIMEOUT_S) from error
        return JSONResponse(Readiness().model_dump())

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Wait for a transcriber, so that a ready gateway can answer."""
        self._decoders = ThreadPoolExecutor(self._limits.num_decoders, thread_name_prefix="decode")
        try:
            async with self._catalog.running():
                yield
        finally:
            self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, request: Request, read: Callable[[FormData], SpeechRequest]) -> Response:
        """Read a form, transcribe its recording, and answer with one body or with events.

        A request holds its admission and its deadline until the last byte of its answer.
        """
        deadline = Deadline(self._limits.deadline_s)
        async with AsyncExitStack() as held, deadline.held():
            held.enter_context(self._admission.open(request.state.client))
            form = await held.enter_async_context(read_form(request, max_body_bytes=self._limits.max_body_bytes))
            speech = read(form)
            served = await self._find(speech)
            held.enter_context(self._admission.working())
            transcription = await self._transcribe(speech, served)
            held.callback(_log_work, request.state.request_id, transcription, time.monotonic())
            if not speech.stream:
                return format_transcript(await transcription.transcript(), speech, language_names=served.language_names)
            events = transcript_events(
                transcription.segments(),
                duration_s=transcription.duration_s,
                wants_language=speech.wants_language,
                wants_logprobs=speech.wants_logprobs,
            )
            held.push_async_callback(events.aclose)
            first = await anext(events)
            return EventStream(
                first, events, deadline=deadline, held=held.pop_all(), request_id=request.state.request_id
            )

    async def _find(self, speech: SpeechRequest) -> ServedModel:
        """Return the loaded model that a request names, and check that it knows the language.

        Raises:
            ModelNotFoundError, ModelLoadError: see ``Catalog.find``.
            InvalidRequestError: the model does not know the language.
        """
        served = await self._catalog.find(speech.model)
        if speech.language is not None and speech.language not in served.language_names:
            message = f"language {shown(speech.language)!r} is unknown to this model; use an ISO 639-1 code, or none"
            raise InvalidRequestError(message, "language", "unsupported_language")
        return served

    async def _transcribe(self, speech: SpeechRequest, served: ServedModel) -> Transcription:
        assert self._decoders is not None, "the application has not been started"
        return await transcribe_recording(
            await speech.file.read(),
            send=partial(send_window, self._transcriber, model=served),
            options=speech.decode_options(),
            long_form=speech.long_form(otherwise=self._long_form),
            served=served,
            limits=self._limits,
            decoders=self._decoders,
        )


def _log_work(request_id: str, transcription: Transcription, started: float) -> None:
    """Log audio seconds, windows and wall time of a request, however it ended."""
    taken_s = time.monotonic() - started
    _log.info(
        "request %s: %.1f s of audio, %d windows, %.2f s",
        request_id,
        transcription.duration_s,
        transcription.num_windows,
        taken_s,
    )


async def _answer_refused(request: Request, error: Exception) -> JSONResponse:
    """Answer requests that the router refuses in OpenAI's error shape."""
    return problem_response(error, request_id=request.state.request_id)
