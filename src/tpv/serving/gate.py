"""What stands before the application: limits on bodies, hosts and origins, and counting."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tpv.errors import plain, scrub
from tpv.serving.metrics import Metrics

WRITES = ("PUT", "DELETE", "PATCH")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def error(status: int, message: str, retry_after: int | None = None) -> Response:
    """The one shape of every answer that is not 2xx."""
    body = to_json({"error": {"status": status, "message": plain(scrub(message))[:2000]}})
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(body, status, headers, "application/json")


class Gate:
    """Refuses what is too large or comes from elsewhere before anything reads it.

    Args:
        most: bytes of a body.
        hosts: names that the server may be called by; None for any. A page of somebody else whose name leads to this
            machine has another one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, most: int, hosts: Collection[str] | None) -> None:
        self._app, self._metrics, self._most, self._hosts = app, metrics, most, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, read = time.perf_counter(), 0, 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, f"the body is too long; expected at most {self._most} bytes")
            return message

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        refused = self._refused(Request(scope))
        if refused is not None:
            await refused(scope, limited, counted)
        else:
            await self._app(scope, limited, counted)
        endpoint = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(endpoint, str(status)).inc()
        self._metrics.request_seconds.labels(endpoint).observe(time.perf_counter() - begun)

    def _refused(self, request: Request) -> Response | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self._hosts is not None and _name(host) not in self._hosts:
            return error(421, f"this server is not called {host!r:.100}; expected {', '.join(sorted(self._hosts))}")
        if origin is not None and request.method in WRITES and urlsplit_host(origin) != host:
            return error(403, "a page of another origin cannot write")
        length: Any = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:30]) > self._most:
            return error(413, f"the body is too long; expected at most {self._most} bytes")
        return None


def _name(host: str) -> str:
    """A host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def urlsplit_host(origin: str) -> str:
    """The host and port of an origin; empty where it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
