"""The HTTP application: OpenAI's endpoints, health, metrics, and the page."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from secateur_runtime.errors import nearest
from secateur_runtime.server.engine.job import Engine, GenerationJob, GenerationRequest
from secateur_runtime.server.http.metrics import Metrics
from secateur_runtime.server.http.openai_requests import RequestReader
from secateur_runtime.server.http.openai_responses import CHAT, PLAIN, Dialect, Wording
from secateur_runtime.server.http.openai_schema import (
    EITHER,
    FIELDS,
    Answer,
    ChatAsked,
    Common,
    CompletionAsked,
    ModelCard,
    ModelList,
    Refusal,
)
from secateur_runtime.server.http.request_guard import Guard, RequestGuard
from secateur_runtime.server.http.streaming import StreamedAnswer, collected
from secateur_runtime.server.page.page import page
from secateur_runtime.server.refusals import RefusedError, error_body

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 403, 404, 408, 413, 429, 500, 503, 504)
}
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": _EVENT}},
        "description": "The answer; as events, the last with the data [DONE], if `stream` was asked for.",
    }
}


@dataclass(frozen=True)
class Service:
    """What an application serves.

    engine: answers jobs. reader: converts requests for it. name: of the model.
    seconds: that an answer may take.
    """

    engine: Engine
    reader: RequestReader
    name: str
    seconds: float


def make_app(service: Service, gate: RequestGuard) -> FastAPI:
    """Return the application, which stops the engine when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.engine.stop()

    app = FastAPI(
        title="Secateur", version="1", docs_url=None, redoc_url=None, lifespan=lifespan, responses=_REFUSALS
    )
    app.add_middleware(Guard, gate=gate)
    app.state.engine = service.engine
    metrics = Metrics(service.engine)
    _add_errors(app)
    _add_answers(app, service, metrics)
    _add_views(app, service, metrics)
    _mend_openapi(app)
    return app


def _add_answers(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.post("/v1/chat/completions", response_model=Answer, responses=_EVENTS)
    async def chat(body: ChatAsked, request: Request) -> Response:
        """Answer a conversation."""
        return await _answer(service, metrics, CHAT, body, service.reader.chat(body), request)

    @app.post("/v1/completions", response_model=Answer, responses=_EVENTS)
    async def completions(body: CompletionAsked, request: Request) -> Response:
        """Continue a text."""
        return await _answer(service, metrics, PLAIN, body, service.reader.completion(body), request)


async def _answer(
    service: Service,
    metrics: Metrics,
    dialect: Dialect,
    body: Common,
    asked: GenerationRequest,
    request: Request,
) -> Response:
    if body.stream_options and not body.stream:
        raise RefusedError(400, "stream_options needs stream: true", param="stream_options")
    job = GenerationJob(asked, seconds=service.seconds)
    service.engine.submit(job)
    wording = Wording(dialect, service.name, len(asked.prompt), service.reader.name)
    watched = metrics.watched(job, request.url.path)
    if body.stream:
        first = await collected(service.engine, job, watched, request, 1)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return StreamedAnswer(service.engine, job, watched, wording, first, usage=usage)
    pieces = await collected(service.engine, job, watched, request)
    return JSONResponse(wording.whole(pieces))


def _add_views(app: FastAPI, service: Service, metrics: Metrics) -> None:
    started = int(time.time())
    card = ModelCard(
        id=service.name, created=started, owned_by="secateur", context_length=service.engine.context
    )

    @app.get("/v1/models")
    async def models() -> ModelList:
        """List the served model."""
        return ModelList(data=[card])

    @app.get("/v1/models/{name:path}", responses=_REFUSALS)
    async def model(name: str) -> ModelCard:
        """Describe a model."""
        if name != card.id:
            raise RefusedError(404, f"no model {name[:80]!r} here; there is {card.id}")
        return card

    @app.get("/health", responses=_REFUSALS)
    async def health() -> dict[str, str]:
        """Tell whether requests are answered."""
        if not service.engine.healthy():
            raise RefusedError(503, "the model has stopped: see the server's log")
        return {"status": "ok"}

    @app.get("/state")
    async def state() -> dict[str, Any]:
        """Return the figures of the engine for the page."""
        return {"model": service.name, "engine": service.engine.name, **asdict(service.engine.state())}

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {metrics.content_type: {"schema": {"type": "string"}}}}},
    )
    async def figures() -> Response:
        """Return the metrics for Prometheus."""
        return Response(metrics.text(), media_type=metrics.content_type)

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        """Show the page."""
        text, headers = page(service.name)
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        headers = {"retry-after": "2"} if error.status in (429, 503) else {}
        return JSONResponse(error_body(error.status, str(error), error.param), error.status, headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        words = {
            404: f"nothing is at {request.url.path[:80]}",
            405: f"{request.method} is not understood here",
        }
        return JSONResponse(
            error_body(error.status_code, words.get(error.status_code, error.detail)),
            error.status_code,
            error.headers,
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        param, words = explained(error.errors()[0])
        return JSONResponse(error_body(400, words, param), 400)


def explained(fault: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the field at fault, if it is one, and one line that says why."""
    if fault["type"] == "json_invalid":
        return None, f"the body is not JSON: {fault['ctx']['error']}"
    # Pydantic names the types that it tried along the way; a client knows only fields and indices.
    steps = [str(step) for step in fault["loc"][1:] if isinstance(step, int) or step in FIELDS]
    if fault["type"] == "extra_forbidden":
        name = str(fault["loc"][-1])
        return name[:80], f"unknown field {'.'.join([*steps, name])[:80]!r}{nearest(name, FIELDS)}"
    field = next((step for step in steps if step in EITHER), None)
    if field:
        return field, f"{'.'.join(steps[: steps.index(field) + 1])}: {EITHER[field]}"
    return ".".join(steps) or None, f"{'.'.join(steps) or 'the body'}: {fault['msg']}"


def _mend_openapi(app: FastAPI) -> None:
    """Remove answer 422 from the OpenAPI description, because `_add_errors` replaces it."""
    made = app.openapi

    def described() -> dict[str, Any]:
        found = made()
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return found

    app.openapi = described  # type: ignore[method-assign]
