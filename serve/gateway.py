"""The gateway: HTTP routes, limits, and a recording split into windows for the transcriber replicas."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from serve.decoding.lanes import Decoded, Decoders
from serve.errors import NotReadyError
from serve.http.admission import Admission
from serve.http.api import Health, Model, ModelList, Readiness
from serve.http.cors import Cors
from serve.http.deadline import Deadline
from serve.http.edge import DOCS_FILES, Edge
from serve.http.events import EventStream, transcript_events
from serve.http.formats import format_model, format_transcript
from serve.http.forms import TranscriptionForm, TranslationForm
from serve.http.keys import read_api_keys
from serve.http.openapi import RouteDocs, install_schema, json_docs, speech_docs
from serve.http.problems import problem_response
from serve.http.speech_request import SpeechRequest, read_transcription, read_translation
from serve.http.upload import Arrival, read_form
from serve.lifecycle.draining import Drain, DrainGate
from serve.models.catalog import Catalog
from serve.models.model_plan import ModelSource
from serve.models.served_model import ServedModel
from serve.observe.request_log import RequestLog, current_request
from serve.replica_log import join_replica_log
from serve.settings import Limits
from serve.transcript import Transcription
from serve.window_order import WindowOrder
from serve.windows import TranscriberHandle, describe_model, send_window
from sottovoce.recognize.longform.algorithms import build_reader
from sottovoce.recognize.longform.options import LongFormOptions
from sottovoce.schema import DecodeOptions, Pcm, WindowResult

_READY_TIMEOUT_S = 5.0  # a replica answers between two batches, and a batch of int8 windows takes one second (guess)


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
        wakes_transcribers: bool = False,
        allow_origins: Sequence[str] = (),
    ) -> None:
        """Prepare the application. Nothing is sent to a transcriber before the application starts.

        Args:
            transcriber: the deployment that decodes windows.
            source: the model repository.
            limits: limits of one request, and of all together.
            api_keys_env: environment variable with the accepted keys; None accepts every request.
            long_form: how long recordings are split unless the request says; None for the defaults.
            wakes_transcribers: whether none may run; a probe of readiness then does not start one.
            allow_origins: origins whose pages may call the service from a browser.

        Raises:
            ConfigError: the variable holds no key.
        """
        join_replica_log()
        self._transcriber = transcriber
        self._catalog = Catalog(transcriber, source)
        self._limits = limits
        self._long_form = long_form or LongFormOptions()
        self._allow_origins = tuple(allow_origins)
        self._keys = read_api_keys(api_keys_env)
        self._wakes_transcribers = wakes_transcribers
        self._drain = Drain()
        self._decoders: Decoders | None = None
        self._window_order = WindowOrder(max_beside_short=limits.max_long_windows_beside_short)
        self._admission = Admission(
            max_uploads=limits.max_uploads,
            max_working=limits.max_concurrent_requests,
            max_per_client=limits.max_requests_per_key,
            has_keys=self._keys.are_wanted,
            arrive=partial(Arrival, timeout_s=limits.upload_timeout_s, min_bytes_per_s=limits.min_upload_bytes_per_s),
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
        alive_path = next(route.path for route in ROUTES if route.handler == "get_health")
        application.add_middleware(DrainGate, drain=self._drain, alive_path=alive_path)
        application.add_middleware(Edge, keys=self._keys, public_paths=public, is_behind_serve=is_behind_serve)
        if self._allow_origins:  # outside the edge: a preflight has no key, and a page may read refusals, too
            application.add_middleware(Cors, origins=self._allow_origins)
        named = [route.path for route in ROUTES]
        application.add_middleware(RequestLog, paths=named, quiet_paths=public)  # the last one added is the outermost
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
        models = ModelList(data=[format_model(model) for model in self._catalog.listed()])
        return JSONResponse(models.model_dump(exclude_none=True))

    async def get_model(self, model_id: str) -> JSONResponse:
        """Return one model. A slash in its id may be sent as it is or as ``%2F``."""
        return JSONResponse(format_model(self._catalog.describe(model_id)).model_dump(exclude_none=True))

    async def get_health(self) -> JSONResponse:
        """Report that this gateway runs."""
        return JSONResponse(Health().model_dump())

    async def drain(self) -> int:
        """Refuse new requests from now on, and return how many are in flight. The launcher calls all gateways."""
        return self._drain.begin()

    async def get_readiness(self) -> JSONResponse:
        """Report whether requests can be answered now.

        Raises:
            NotReadyError: no transcriber answered in time.
            ModelLoadError, OverloadedError, TranscriberLostError: see ``Catalog.find_default``.
        """
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                served = await self._catalog.find_default()
                if self._wakes_transcribers:
                    return JSONResponse(Readiness().model_dump())
                await describe_model(self._transcriber, served.key)
        except TimeoutError as error:
            raise NotReadyError(_READY_TIMEOUT_S) from error
        return JSONResponse(Readiness().model_dump())

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Wait for a transcriber, so that a ready gateway can answer."""
        self._decoders = Decoders(self._limits)
        self._decoders.start()
        try:
            async with self._catalog.running():
                yield
        finally:
            self._decoders.close()

    async def _answer(self, request: Request, read: Callable[[FormData], SpeechRequest]) -> Response:
        """Read a form, transcribe its recording, and answer with one body or with events.

        A request holds its admission and its deadline until the last byte of its answer.
        """
        deadline, line = Deadline(self._limits.deadline_s), current_request()
        async with AsyncExitStack() as held, deadline.held():
            arrival = held.enter_context(self._admission.open(request.state.client))
            form = await held.enter_async_context(
                read_form(request, arrival=arrival, max_body_bytes=self._limits.max_body_bytes)
            )
            speech = read(form)
            line.take_form(is_stream=speech.stream)
            served = await self._catalog.find(speech.model)
            speech = speech.spoken_in(served.language_names)
            line.take_model(served.key)
            held.enter_context(self._admission.working())
            assert self._decoders is not None, "the application has not been started"
            decoded = await held.enter_async_context(self._decoders.decoded(speech.file.file))
            deadline.extend(self._limits.deadline_per_audio_s * decoded.recording.duration_s)
            if not decoded.is_long:
                held.enter_context(self._window_order.short())
            line.end_lap("decode_s")
            transcription = self._transcribe(decoded, speech, served)
            held.callback(line.take_work, transcription)
            if not speech.stream:
                return format_transcript(await transcription.transcript(), speech, language_names=served.language_names)
            events = transcript_events(
                transcription.segments(),
                duration_s=transcription.duration_s,
                wants_language=speech.wants_language,
                wants_logprobs=speech.wants_logprobs,
                wants_usage=speech.wants_usage,
            )
            held.push_async_callback(events.aclose)
            first = await anext(events)
            return EventStream(
                first, events, deadline=deadline, held=held.pop_all(), request_id=request.state.request_id
            )

    def _transcribe(self, decoded: Decoded, speech: SpeechRequest, served: ServedModel) -> Transcription:
        send = partial(send_window, self._transcriber, model=served)

        async def send_in_turn(pcm: Pcm, options: DecodeOptions) -> WindowResult:
            async with self._window_order.long():
                return await send(pcm, options)

        reader = build_reader(
            decoded.recording,
            speech.decode_options(),
            speech.long_form(otherwise=self._long_form),
            min_window_s=served.min_window_s,
            max_window_s=served.max_window_s,
        )
        return Transcription(
            decoded.recording,
            reader,
            send=send_in_turn if decoded.is_long else send,
            max_in_flight=self._limits.max_windows_in_flight,
            threads=decoded.threads,
        )


async def _answer_refused(request: Request, error: Exception) -> JSONResponse:
    """Answer requests that the router refuses in OpenAI's error shape."""
    return problem_response(error, request_id=request.state.request_id)
