"""Replicas of the server on a Ray cluster, by Ray Serve."""

from __future__ import annotations

from tpv.errors import TpvError
from tpv.serving.settings import ServeSettings


def run_on_ray(settings: ServeSettings, *, replicas: int, address: str | None, gpus: float) -> None:
    raise TpvError("later")
