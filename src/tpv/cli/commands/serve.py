"""`tpv serve`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from tpv.cli.options import ModelOptions
from tpv.errors import TpvError

ORDER = 47
MIB = 2**20


class Where(StrEnum):
    """What runs the server."""

    local = "local"
    ray = "ray"


@dataclass
class LoadOptions:
    """How much at once, and how long."""

    title: ClassVar[str] = "Load"
    queue_rows: Annotated[int, typer.Option(min=1, help="Rows that may wait; more are refused (429).")] = 4096
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a request may take (504).")] = 30.0
    window_ms: Annotated[
        float, typer.Option(min=0.0, max=10_000.0, help="Milliseconds an idle model waits for more rows before a pass.")
    ] = 0.0
    pass_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of prompts and texts in a pass.  [default: as many as take about 0.1 s]"),
    ] = None
    cache_mb: Annotated[
        int, typer.Option(min=0, help="MiB of prompts' keys and values kept between passes (causal models).")
    ] = 256
    watch: Annotated[
        float, typer.Option(min=0.01, help="Seconds between looks at the library for what others changed there.")
    ] = 0.5


@dataclass
class LimitOptions:
    """What one request may ask for."""

    title: ClassVar[str] = "Limits of a request"
    max_body_mb: Annotated[int, typer.Option(min=1, help="MiB of a request, an uploaded file too.")] = 8
    max_rows: Annotated[int, typer.Option(min=1, help="Texts times prompts.")] = 1024
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 100_000
    max_prompts: Annotated[int, typer.Option(min=1, help="Different prompts.")] = 64
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate for each text.")] = 512


def command(
    model: ModelOptions,
    load: LoadOptions,
    limits: LimitOptions,
    library: Annotated[
        str, typer.Option("--library", "-l", help="Folder or URL of prompts and vectors; or a run directory.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; one that others reach needs keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="File of keys (TOML); the key in $TPV_API_KEY may read and write.")
    ] = None,
    executor: Annotated[Where, typer.Option(help="This process, or replicas on a Ray cluster.")] = Where.local,
    replicas: Annotated[int, typer.Option(min=1, help="Of `--executor ray`.")] = 1,
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster.  [default: one here]")] = None,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs of each replica; 0.5 for two on one GPU.")] = 0.0,
) -> None:
    """Serve all prompts and vectors of a library on one frozen model, over HTTP.

    Requests of all clients share the model's passes, whichever prompts they name. Prompts are added while it runs, as
    files or as expressions over the library. There is a page at `/`. Without keys nobody may write.

    Examples: `tpv serve --library vectors`

    `TPV_API_KEY=a-long-secret tpv serve --model smollm2 --library vectors --port 9000`

    `tpv serve --library s3://bucket/vectors --keys keys.toml --host 0.0.0.0 --executor ray --replicas 4 --gpus 1`
    """
    from tpv.serving.server import need, run

    need("fastapi", "uvicorn", "prometheus_client")
    from tpv.serving.settings import RequestLimits, ServeSettings

    if executor is Where.local and (replicas > 1 or address is not None or gpus):
        raise TpvError("--replicas, --address and --gpus", expected="--executor ray with them", got="none")
    settings = ServeSettings(
        model=model.choice(),
        device=model.device,
        device_map=model.placing(),
        library=library,
        host=host,
        port=port,
        keys=None if keys is None else keys.resolve(),
        limits=RequestLimits(
            body=limits.max_body_mb * MIB,
            rows=limits.max_rows,
            characters=limits.max_characters,
            prompts=limits.max_prompts,
            new_tokens=limits.max_new_tokens,
        ),
        queue_rows=load.queue_rows,
        timeout=load.timeout,
        window=load.window_ms / 1000,
        pass_positions=load.pass_tokens,
        cache=load.cache_mb * MIB,
        watch=load.watch,
    )
    if executor is Where.ray:
        from tpv.serving.cluster import run_on_ray

        run_on_ray(settings, replicas=replicas, address=address, gpus=gpus)
        return
    run(settings)
