"""The HTTP application: what each address answers."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import re
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from tpv import __version__
from tpv.errors import TpvError, scrub
from tpv.models import Backbone
from tpv.registry import told
from tpv.serving.catalog import Catalog
from tpv.serving.engine import Engine
from tpv.serving.gate import Gate, error
from tpv.serving.keys import ApiKeys, Caller
from tpv.serving.metrics import Metrics
from tpv.serving.problems import Refusal
from tpv.serving.schemas import (
    Cosines,
    ErrorAnswer,
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
    PredictResponse,
    PromptAbout,
    PromptList,
    PutRequest,
)
from tpv.serving.service import Service, event
from tpv.serving.settings import LOOPBACK, ServeSettings

Answer = TypeVar("Answer")
BREATHS = 10  # times as long as looking at the library takes, before the next look
ABOUT = """Many prompts on one frozen model. Names are those of the library's files without their ending.

Send a key as `Authorization: Bearer KEY`. Every answer that is not 2xx is `{"error": {"status": …, "message": …}}`."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "The body does not parse.",
        401: "No key, or a wrong one.",
        403: "The key may not do this.",
        404: "There is no such prompt.",
        409: "Another version, or a name that is taken.",
        413: "Too much at once.",
        415: "Another type of body than expected.",
        421: "The server is not called so.",
        422: "It does not fit; the message says what was expected.",
        429: "Too many rows wait; Retry-After says when to try again.",
        503: "The server is about to stop.",
        504: "It took too long.",
    }.items()
}
PromptName = Annotated[str, Path(description="Name of a prompt or a vector of the library.", max_length=200)]
PUT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": PutRequest.model_json_schema(ref_template="#/components/schemas/{model}")},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def json_answer(content: Any, status: int = 200) -> Response:
    """An answer that is not validated again: the service made it."""
    return Response(to_json(content), status, media_type="application/json")


def build(settings: ServeSettings, backbone: Backbone, keys: ApiKeys) -> FastAPI:
    """The application of a server; it lives from startup to shutdown as an ASGI application does.

    Raises:
        TpvError: a library that cannot be read, or a server that others reach and that has no keys.
    """
    keys.check(settings.host)
    metrics = Metrics()
    catalog = Catalog(backbone, settings.library)
    kept = backbone.keep_prompts(settings.cache)
    metrics.watch("tpv_prompts", "Prompts and vectors served.", lambda: float(len(catalog.names)))
    metrics.watch("tpv_left_out_files", "Files of the library that are not.", lambda: float(len(catalog.left_out)))
    metrics.watch("tpv_kept_bytes", "Keys and values of prompts kept.", lambda: float(kept.used if kept else 0))
    metrics.watch("tpv_kept_hits", "Prompts of passes that were kept.", lambda: float(kept.hits if kept else 0))
    metrics.watch("tpv_kept_misses", "Prompts of passes that were not.", lambda: float(kept.misses if kept else 0))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        engine = Engine(
            backbone,
            metrics,
            most_rows=settings.queue_rows,
            timeout=settings.timeout,
            window=settings.window,
            most_positions=settings.pass_positions,
        )
        app.state.service = Service(backbone, catalog, engine, settings.limits)
        engine.start()
        gc.collect()
        gc.freeze()  # what a model consists of stays; looking through it again and again takes a pass's time
        watching = asyncio.get_running_loop().create_task(_watch(catalog, settings.watch))
        try:
            yield
        finally:
            await engine.stop()
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            catalog.close()

    app = FastAPI(
        title="tpv",
        version=__version__,
        description=ABOUT,
        lifespan=life,
        docs_url=None,  # they load scripts from elsewhere; /openapi.json is for any viewer
        redoc_url=None,
    )
    app.state.keys, app.state.metrics, app.state.catalog = keys, metrics, catalog
    _routes(app)
    _errors(app)
    hosts = {*LOOPBACK, settings.host} if not len(keys) else None
    app.add_middleware(Gate, metrics=metrics, most=settings.limits.body, hosts=hosts)
    return app


async def _watch(catalog: Catalog, seconds: float) -> None:
    """Look for files that others brought, changed or removed; at a large library less often."""
    took = 0.0
    while True:
        await asyncio.sleep(max(seconds, BREATHS * took))
        begun = time.monotonic()
        with suppress(TpvError, OSError):  # of a library out of reach for a while, what is known goes on being served
            await asyncio.to_thread(catalog.refresh)
        took = time.monotonic() - begun


# --- who asks ---------------------------------------------------------------------------------------------
async def reader(request: Request) -> Caller:
    """Who sends a request, if they may read."""
    keys: ApiKeys = request.app.state.keys
    return keys.caller(request.headers.get("authorization"), request.client.host if request.client else "")


async def writer(request: Request) -> Caller:
    """Who sends a request, if they may write."""
    caller = await reader(request)
    if not caller.writes:
        fix = "start the server with TPV_API_KEY, or give the key the right to write"
        raise Refusal(403, "this takes a key with the right to write", fix=fix)
    return caller


async def service_of(request: Request) -> Service:
    """The service of the application."""
    service: Service = request.app.state.service
    return service


Reader = Annotated[Caller, Depends(reader)]
Writer = Annotated[Caller, Depends(writer)]
OfApp = Annotated[Service, Depends(service_of)]


async def while_there(request: Request, answer: Awaitable[Answer]) -> Answer:
    """An answer, unless the client goes away before it is there."""
    task = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Refusal(499, "the client went away")
    finally:
        for one in (task, gone):
            one.cancel()
        with suppress(asyncio.CancelledError, TpvError):
            await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- addresses --------------------------------------------------------------------------------------------
def _routes(app: FastAPI) -> None:
    _pages(app)
    for method, path, function, options in (
        ("POST", "/v1/predict", predict, {"response_model": PredictResponse}),
        ("POST", "/v1/generate", generate, {"response_model": GenerateResponse}),
        ("GET", "/v1/prompts", prompts, {"response_model": PromptList}),
        ("GET", "/v1/similarity", similarity, {"response_model": Cosines}),
        ("GET", "/v1/prompts/{name:path}", prompt, {"response_model": PromptAbout}),
        ("PUT", "/v1/prompts/{name:path}", put, {"response_model": PromptAbout, "openapi_extra": PUT_BODY}),
        ("DELETE", "/v1/prompts/{name:path}", delete, {"status_code": 204, "response_class": Response}),
    ):
        app.add_api_route(path, function, methods=[method], responses=REFUSALS, **options)


async def predict(request: Request, caller: Reader, service: OfApp, ask: PredictRequest) -> Response:
    """Label texts under one prompt or several: labels, probabilities, and what greedy decoding says."""
    return json_answer(await while_there(request, service.predict(caller, ask)))


async def generate(request: Request, caller: Reader, service: OfApp, ask: GenerateRequest) -> Response:
    """Write text after texts; with `stream`, as server-sent events `start`, `piece`, `end` and `done`."""
    if not ask.stream:
        return json_answer(await while_there(request, service.generate(caller, ask)))
    events = service.stream(caller, ask)
    first = await anext(events)  # what is wrong with a request is said by the status, and not in the stream
    return StreamingResponse(_sent(first, events), media_type="text/event-stream")


async def _sent(
    first: tuple[str, dict[str, Any]], events: AsyncGenerator[tuple[str, dict[str, Any]], None]
) -> AsyncIterator[bytes]:
    async with aclosing(events):
        yield event(*first)
        try:
            async for one in events:
                yield event(*one)
        except TpvError as problem:
            yield event("error", {"status": getattr(problem, "status", 422), "message": str(problem)})


async def prompts(caller: Reader, service: OfApp) -> Response:
    """Everything that is served, and the files that are not."""
    catalog, identity = service.catalog, service.backbone.identity
    return json_answer(
        {
            "model": _model_name(identity.name),
            "fingerprint": identity.fingerprint,
            "prompts": [version.about() for version in catalog.versions],
            "left_out": dict(sorted(catalog.left_out.items())),
        }
    )


async def prompt(caller: Reader, service: OfApp, name: PromptName) -> Response:
    """What there is to know of a prompt or a vector."""
    return json_answer(service.catalog.get(name).about())


async def put(
    request: Request,
    caller: Writer,
    service: OfApp,
    name: PromptName,
    task: Annotated[str | None, Query(description="Of an uploaded file: the name of its task.", max_length=200)] = None,
) -> Response:
    """Write a prompt or a vector to the library: a safetensors file that tpv wrote, or an expression as JSON.

    It is served when the answer is there. An existing one of the same kind is replaced.
    """
    body, kind = await request.body(), request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        raise Refusal(415, "a form", expected="the file itself as the body, or JSON", got=kind)
    is_json = kind == "application/json" or (body[:1] == b"{" and b"\0" not in body[:8])  # a file begins with a length
    ask = PutRequest.model_validate_json(body) if is_json else None
    version, new = await service.put(name, body, ask, task)
    return json_answer(version.about(), 201 if new else 200)


async def delete(caller: Writer, service: OfApp, name: PromptName) -> Response:
    """Delete a prompt or a vector of the library."""
    await service.delete(name)
    return Response(status_code=204)


async def similarity(
    caller: Reader,
    service: OfApp,
    names: Annotated[str, Query(description="Of vectors, separated by commas.", max_length=20_000)] = "",
) -> Response:
    """Cosines between vectors of the library."""
    return json_answer(await service.similarity([name for name in names.split(",") if name]))


def _pages(app: FastAPI) -> None:
    """The page, and what is asked by machines that watch the server."""
    page = files("tpv.serving").joinpath("page.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    mark = base64.b64encode(hashlib.sha256((script[1] if script else "").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{mark}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/", include_in_schema=False)
    async def start() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"model": ErrorAnswer, "description": "It is about to stop."}})
    async def readyz(service: OfApp) -> JSONResponse:
        """Whether requests are answered."""
        if service.engine.draining:
            raise Refusal(503, "the server is about to stop", retry_after=1.0)
        return JSONResponse({"status": "ok", "prompts": len(service.catalog.names)})

    @app.get("/metrics", response_class=Response)
    async def numbers(caller: Reader, request: Request) -> Response:
        """Counters in Prometheus' text format."""
        metrics: Metrics = request.app.state.metrics
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _model_name(name: str) -> str:
    """The name of a model, without the folders of a local one."""
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".", "~")) else name


# --- errors -----------------------------------------------------------------------------------------------
def _errors(app: FastAPI) -> None:
    def handler(kind: type[Exception], told_by: Callable[[Any], Response]) -> None:
        async def handle(_: Request, problem: Exception) -> Response:
            return told_by(problem)

        app.add_exception_handler(kind, handle)

    handler(TpvError, lambda one: error(getattr(one, "status", 422), str(one), getattr(one, "retry_after", None)))
    handler(RequestValidationError, lambda one: error(422, _mistakes(one.errors())))
    handler(ValidationError, lambda one: error(422, "; ".join(told(one, PutRequest))))
    handler(HTTPException, lambda one: error(one.status_code, str(one.detail)))
    handler(Exception, _our_fault)


def _our_fault(problem: Exception) -> Response:
    """No word of what went wrong to the client; the log has it."""
    print(scrub("".join(traceback.format_exception(problem))), flush=True)
    return error(500, "something went wrong in the server")


def _mistakes(errors: Any) -> str:
    """All that does not fit, in one line."""
    lines = []
    for one in list(errors)[:10]:
        where = ".".join(str(part) for part in one.get("loc", ()) if part != "body")
        lines.append(f"{where[:200]}: {one.get('msg', '')}" if where else str(one.get("msg", "")))
    return "; ".join(lines)
