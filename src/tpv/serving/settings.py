"""What a server is told: model, library, limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from pydantic import BaseModel, ConfigDict, Field

from tpv.evaluation.tuned import ModelChoice

if TYPE_CHECKING:
    from tpv.models import Backbone
    from tpv.models.placement import DeviceMap

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIB = 2**20


class RequestLimits(BaseModel):
    """What one request may ask for.

    Attributes:
        body: bytes of it, an uploaded file too.
        rows: texts times prompts.
        characters: of a text.
        prompts: different ones.
        new_tokens: to generate, for each text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    body: Annotated[int, Field(ge=1024)] = 8 * MIB
    rows: Annotated[int, Field(ge=1)] = 1024
    characters: Annotated[int, Field(ge=1)] = 100_000
    prompts: Annotated[int, Field(ge=1)] = 64
    new_tokens: Annotated[int, Field(ge=1)] = 512


class ServeSettings(BaseModel):
    """How a server runs.

    Attributes:
        library: a folder, a URL, or what else `tpv.Library` reads.
        device, device_map: where the model is, see `tpv.load_backbone`.
        host, port: where it listens.
        keys: file of keys, see `tpv.serving.keys`.
        queue_rows: rows that may wait; more are refused with 429.
        timeout: seconds that a request may take; 504 after that.
        window: seconds an idle model waits for more rows before a pass.
        pass_positions: prompt and text positions of a pass at most; None for as many as take about 0.1 s.
        cache: bytes of keys and values of prompts to keep between passes.
        watch: seconds between looks at the library for files that others changed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: ModelChoice
    library: str
    device: str | None = None
    device_map: str | dict[str, int | str] | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    keys: Path | None = None
    limits: RequestLimits = RequestLimits()
    queue_rows: Annotated[int, Field(ge=1)] = 4096
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    window: Annotated[float, Field(ge=0, le=10)] = 0.0
    pass_positions: Annotated[int, Field(ge=1)] | None = None
    cache: Annotated[int, Field(ge=0)] = 256 * MIB
    watch: Annotated[float, Field(gt=0)] = 0.5

    def backbone(self) -> Backbone:
        """The model, loaded."""
        return self.model.load(device=self.device, device_map=cast("DeviceMap | None", self.device_map))
