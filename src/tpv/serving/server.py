"""A server on this machine: uvicorn around the application."""

from __future__ import annotations

import logging
import sys
from types import FrameType
from typing import Any

from tpv import errors
from tpv.errors import TpvError
from tpv.serving.settings import ServeSettings

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}


def need(*packages: str, extra: str = "serve") -> None:
    """Refuse to go on without packages of an extra.

    Raises:
        TpvError: one is missing.
    """
    errors.need("tpv serve", *packages, extra=extra)


def run(settings: ServeSettings, backbone: Any = None) -> None:
    """Serve until the process is told to end; what was accepted by then is answered.

    Args:
        backbone: a model that is loaded already.

    Raises:
        TpvError: a package is missing, a model, library or file of keys that does not load, a port that is taken.
    """
    need(*NEEDED)
    import uvicorn

    from tpv.serving.app import build
    from tpv.serving.keys import ApiKeys

    keys = ApiKeys.load(settings.keys)
    model = backbone or settings.backbone()
    app = build(settings, model, keys)

    class Server(uvicorn.Server):
        """Says that it is about to stop before it stops."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if hasattr(app.state, "service"):
                app.state.service.engine.draining = True
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.timeout) + 5,
        h11_max_incomplete_event_size=64 * 1024,
        limit_concurrency=None,
    )
    server = Server(config)
    _announce(server, settings, len(app.state.catalog.names), len(keys))
    try:
        server.run()
    except KeyboardInterrupt:  # uvicorn raises the signal again once it has ended in good order
        return
    except SystemExit as error:
        raise TpvError(f"no server at {settings.host}:{settings.port}", fix="choose another --port") from error
    if not server.started:
        raise TpvError(f"no server at {settings.host}:{settings.port}", fix="choose another --port")


def _announce(server: Any, settings: ServeSettings, prompts: int, keys: int) -> None:
    """Say where the server is, once it listens."""
    own = server.startup

    async def startup(sockets: Any = None) -> None:
        await own(sockets=sockets)
        if server.started:
            port = next((one.getsockname()[1] for each in server.servers for one in each.sockets), settings.port)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            told = "" if keys else "; nobody may write: set TPV_API_KEY for that"
            print(f"serving {prompts} prompts at http://{host}:{port}{told}", file=sys.stderr, flush=True)

    server.startup = startup
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
