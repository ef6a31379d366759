"""Replicas of the server on a Ray cluster: Ray Serve starts them, spreads requests over them and replaces the dead."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from tpv.errors import TpvError
from tpv.serving.keys import ApiKeys
from tpv.serving.server import NEEDED, need
from tpv.serving.settings import ServeSettings

NAME = "tpv"
WAITING = 10_000  # requests that a replica takes at once: its own queue says when it is full


def deploy(settings: ServeSettings, *, replicas: int, address: str | None = None, gpus: float = 0.0) -> None:
    """Start replicas of the server, each with a model of its own, and return when they answer.

    They share the library, a URL or a folder that all machines have; what is put through one is known to all others
    after `settings.watch` seconds.

    Args:
        address: of the cluster; by default one that runs on this machine, or else a new one.
        gpus: of each replica; 0.5 for two on one GPU.

    Raises:
        TpvError: a package is missing, a file of keys that does not read, no cluster, or replicas that do not start.
    """
    need(*NEEDED)
    need("ray", extra="ray")
    import ray
    from ray import serve

    keys = ApiKeys.load(settings.keys)  # what replicas get holds hashes only
    keys.check(settings.host)
    try:
        if not ray.is_initialized():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise TpvError(
            f"no Ray cluster at {address!r}", got=str(error), fix="start one with `ray start --head`"
        ) from None
    options = {"host": settings.host, "port": settings.port, "request_timeout_s": settings.timeout + 10}
    serve.start(http_options=options, logging_config={"log_level": "ERROR"})
    replica: Any = serve.deployment(serve.ingress(_builder(settings, keys))())
    app = replica.options(
        name=NAME,
        num_replicas=replicas,
        max_ongoing_requests=WAITING,
        graceful_shutdown_timeout_s=settings.timeout + 10,
        ray_actor_options={"num_gpus": gpus},
    ).bind()
    try:
        serve.run(app, name=NAME, route_prefix="/", logging_config={"log_level": "ERROR"})
    except RuntimeError as error:
        raise TpvError("the replicas do not start", got=str(error), fix="`ray logs` has more") from None


def _builder(settings: ServeSettings, keys: ApiKeys) -> Any:
    """What makes the application in each replica."""

    def application() -> Any:
        from tpv.serving.app import build

        return build(settings, settings.backbone(), keys)

    return application


def shut_down() -> None:
    """End the replicas; what they accepted is answered."""
    import ray
    from ray import serve

    ending: Any = serve.shutdown
    ending()
    ray.shutdown()


def run_on_ray(settings: ServeSettings, *, replicas: int, address: str | None, gpus: float) -> None:
    """Serve until the process is told to end; see `deploy`."""
    deploy(settings, replicas=replicas, address=address, gpus=gpus)
    print(f"serving with {replicas} replicas at http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        shut_down()
