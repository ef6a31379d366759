"""Where a prompt or a vector comes from: plain data that travels with the tensor, never a parsed name.

The records here are part of every file and of its hash. A field that 0.1 did not have is left out of both where it
says nothing, so that files and hashes of 0.1 stay valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)
from torch import Tensor

from tpv.errors import TpvError

Architecture = Literal["encoder-decoder", "decoder-only"]
Parameters = dict[str, JsonValue]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]  # of something registered


class _Record(BaseModel):
    """Immutable data with a fixed spelling in JSON.

    `_later` names the fields that 0.1 did not have: they are written only where they differ from their default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    _later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _written(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = plain(self)
        for name in self._later:
            if getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)
        return values

    def __hash__(self) -> int:  # pydantic's own fails on a field that holds a dict
        return hash(self.model_dump_json())


class ModelIdentity(_Record):
    """The model a prompt belongs to.

    Attributes:
        name: where it was loaded from; it is for people and decides nothing.
        fingerprint: sha256 of the input embedding matrix (see `fingerprint`); models are equal if it is.
        hidden_size: H, the width of an embedding.
        architecture: which kind of model reads the prompt; like the name, it decides nothing here.
        quantization: how its weights were quantized, empty where they are not; the fingerprint knows.
    """

    _later: ClassVar[frozenset[str]] = frozenset({"architecture", "quantization"})
    name: str
    fingerprint: str
    hidden_size: int
    architecture: Architecture = "encoder-decoder"
    quantization: str = ""

    def __str__(self) -> str:
        how = f", {self.quantization}" if self.quantization else ""
        return f"{self.name} ({self.fingerprint[:12]}, H={self.hidden_size}{how})"


class Init(_Record):
    """The initialization of a prompt: which rows training started from.

    Attributes:
        kind: name of the initializer: `vocabulary`, `text`, `normal`, `zero`, that of a plugin, or `given` (a tensor
            made elsewhere).
        seed: of the draw, where there was one.
        token_ids: the vocabulary rows that were copied, where there were any.
        detail: the text, the standard deviation, or the hash of a given tensor.
        parameters: the initializer's parameters that differ from their defaults, such as `{"limit": 0}`; None where
            none does, and in files of 0.1, which did not record them.
    """

    _later: ClassVar[frozenset[str]] = frozenset({"parameters"})
    kind: Name
    seed: int | None = None
    token_ids: tuple[int, ...] | None = None
    detail: str | None = None
    parameters: Parameters | None = None

    def __str__(self) -> str:
        kind = _called(self.kind, self.parameters)
        if self.seed is not None:
            return f"{kind} seed {self.seed}"
        return f"{kind} {self.detail!r}" if self.detail else kind

    def matches(self, other: Init) -> bool:
        """Whether both are the same initialization; parameters that one of them did not record may be anything."""
        if self.parameters is None or other.parameters is None:
            first, second = (init.model_copy(update={"parameters": None}) for init in (self, other))
            return first == second
        return self == other


class VectorTraining(_Record):
    """How a vector was trained that was trained as a vector, and not as a prompt (see `tpv.fit_vectors`).

    Attributes:
        starts: name of the initializer that fresh initializations were drawn from at every step, or `given` for a
            list of prompts; empty where one initialization served throughout, which is then the component's `init`.
        beside: tasks whose vectors were added at random during training, in name order.
        pool: origins of those among them that existed before and stayed frozen.
        scales: range that the vector's own factor was drawn from, and those of the frozen ones.
        seed: of all these draws.
        parameters: all parameters of the initializer, such as `{"limit": 5000}`; None in files of 0.1, where
            `vocabulary` always meant a limit of 5,000.
    """

    _later: ClassVar[frozenset[str]] = frozenset({"parameters"})
    starts: str
    beside: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    scales: tuple[float, float] = (1.0, 1.0)
    seed: int = 0
    parameters: Parameters | None = None

    def __str__(self) -> str:
        ways = [f"fresh {_called(self.starts, self.parameters)} initializations"] * bool(self.starts)
        ways += [f"beside {', '.join(self.beside)}"] * bool(self.beside)
        ways += [f"scales {self.scales[0]:g} to {self.scales[1]:g}"] * (self.scales != (1.0, 1.0))
        return "; ".join(ways)


class Source(_Record):
    """One vector that went into a merge.

    Attributes:
        digest: of the vector (see `PromptMatrix.digest`).
        components: what it was made of.
    """

    digest: str
    components: Components

    def __str__(self) -> str:
        return described(self.components)


class Merge(_Record):
    """A merge that is not a weighted sum, so that coefficients cannot describe it.

    Attributes:
        method: the registered name, such as `ties`.
        parameters: all of its parameters, defaults included.
        sources: the vectors that were merged, in the order they were given.
    """

    method: Name
    parameters: Parameters
    sources: tuple[Source, ...]

    def __str__(self) -> str:
        return f"{self.method}({', '.join(map(str, self.sources))})"


class Adaptation(_Record):
    """What a ported prompt or vector was trained on, on the model it was ported to.

    Attributes:
        task, data: name and fingerprint of the rows.
        rows, steps: how many.
        teacher: what the rows taught: their `labels`, or what the `source` model says to them under the old prompt.
    """

    task: str
    data: str
    rows: int
    steps: int
    teacher: Literal["labels", "source"]

    def __str__(self) -> str:
        return f"{self.steps} steps on {self.rows} rows of {self.task}"


class Port(_Record):
    """How something came from another model (see `tpv.port`).

    Attributes:
        method: the registered name of the map, such as `procrustes`.
        parameters: all of its parameters, defaults included.
        anchors: how many tokens or texts it was fitted on; 0 for a map that needs none.
        model: the model it came from.
        of: what it was there, with a coefficient of 1.
        adapted: what it was trained on afterwards, if anything.
    """

    method: Name
    parameters: Parameters
    anchors: int
    model: ModelIdentity
    of: Component
    adapted: Adaptation | None = None

    def __str__(self) -> str:
        after = f", then {self.adapted}" if self.adapted is not None else ""
        return f"ported from {self.model.name} by {self.method}{after}"


class Component(_Record):
    """One part of a prompt or a vector, added `coefficient` times: a trained task vector, or the result of a merge.

    Attributes:
        task: name of the task it was trained on; empty for a merge.
        data: fingerprint of the rows it was trained with, empty where unknown.
        origin: hash of the vector as it was trained or merged; two trainings of a task are two components.
        init: the initialization it was trained from; None for a vector that was trained from many, and for a merge.
        coefficient: signed factor.
        training: how it was trained, where that was not from one initialization and in isolation.
        merge: what was merged and how, where it is the result of a merge.
        port: how it came from another model, if it did.
    """

    _later: ClassVar[frozenset[str]] = frozenset({"training", "merge", "port"})
    task: str
    data: str = ""
    origin: str
    init: Init | None
    coefficient: float
    training: VectorTraining | None = None
    merge: Merge | None = None
    port: Port | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Component:
        if self.merge is not None and (self.task or self.data or self.init or self.training):
            raise ValueError("a component is a trained vector or a merge, not both")
        return self

    @property
    def name(self) -> str:
        """What people call it: the task, or the merge with its sources."""
        return self.task if self.merge is None else str(self.merge)

    @property
    def home(self) -> str:
        """Where and how it was trained, in words; empty for a merge."""
        return "; ".join(str(part) for part in (self.init, self.training, self.port) if part is not None)


Components = tuple[Component, ...]
for _record in (Source, Merge, Port, Component):
    _record.model_rebuild()
ROUNDING = 1e-12  # relative size below which a sum of coefficients is rounding and not a term


def combine(weighted: Iterable[tuple[float, Components]]) -> Components:
    """The linear combination of components: equal origins are added up, zeros dropped, in a fixed order.

    What cancels up to rounding (0.1 + 0.2 - 0.3) counts as zero.
    """
    total: dict[tuple[str, str], float] = {}
    size: dict[tuple[str, str], float] = {}
    part_of: dict[tuple[str, str], Component] = {}
    for scale, components in weighted:
        for part in components:
            key = (part.task, part.origin)
            total[key] = total.get(key, 0.0) + scale * part.coefficient
            size[key] = max(size.get(key, 0.0), abs(scale * part.coefficient))
            part_of[key] = part
    return tuple(
        part_of[key].model_copy(update={"coefficient": total[key]})
        for key in sorted(total)
        if abs(total[key]) > ROUNDING * size[key]
    )


def terms(components: Components) -> dict[str, float]:
    """Signed coefficient of each task, in task order; trainings of one task are added up.

    Raises:
        TpvError: a component is a merge, of which no coefficients say what went in.
    """
    merges = [part.name for part in components if part.merge is not None]
    if merges:
        raise TpvError(
            "a merge has no terms",
            expected="a weighted sum of trained vectors",
            got=", ".join(merges),
            fix="read .provenance instead: method, parameters and sources",
        )
    return _summed(components)


def _summed(components: Components) -> dict[str, float]:
    """Coefficient by name; a merge goes by its description, which is for people only."""
    result: dict[str, float] = {}
    size: dict[str, float] = {}
    for part in components:
        result[part.name] = result.get(part.name, 0.0) + part.coefficient
        size[part.name] = max(size.get(part.name, 0.0), abs(part.coefficient))
    return {name: result[name] for name in sorted(result) if abs(result[name]) > ROUNDING * size[name]}


def expression(coefficients: Mapping[str, float]) -> str:
    """Terms as people write them: `sst2 + 0.5 yelp - mnli`."""
    parts: list[str] = []
    for task, coefficient in coefficients.items():
        size = abs(coefficient)
        factor = "" if size == 1.0 else f"{size:g} "
        sign = "-" if coefficient < 0 else "+"
        parts.append(f"{sign} {factor}{task}" if parts else f"{'-' if coefficient < 0 else ''}{factor}{task}")
    return " ".join(parts) or "0"


def described(components: Components) -> str:
    """What went in, as people write it, merges included: `mnli + 0.5 ties(sst2, yelp)`."""
    return expression(_summed(components))


def provenance(components: Components) -> dict[str, Any]:
    """What went in and how, as JSON-ready values: a `method`, its `parameters` and its `sources`.

    A weighted sum is the method `linear` with a weight for each source. A source is either a trained vector (`task`,
    `origin`, `init` and so on) or has a method, parameters and sources itself. The source of a merge has its `digest`
    too.
    """
    if len(components) == 1 and components[0].merge is not None and components[0].coefficient == 1.0:
        merge = components[0].merge
        sources = [{"digest": source.digest} | provenance(source.components) for source in merge.sources]
        return {"method": merge.method, "parameters": merge.model_dump(mode="json")["parameters"], "sources": sources}
    return {
        "method": "linear",
        "parameters": {"weights": [part.coefficient for part in components]},
        "sources": [_of_one(part) for part in components],
    }


def _of_one(part: Component) -> dict[str, Any]:
    if part.merge is not None:
        return provenance((part.model_copy(update={"coefficient": 1.0}),))
    values = part.model_dump(mode="json")
    del values["coefficient"]
    return values


def _called(kind: str, parameters: Parameters | None) -> str:
    """An initializer with its parameters: `vocabulary (limit 0)`."""
    said = ", ".join(f"{name} {value}" for name, value in sorted((parameters or {}).items()) if value is not None)
    return f"{kind} ({said})" if said else kind


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw little-endian bytes of a contiguous CPU tensor, without a copy."""
    raw: Any = tensor.view(torch.uint8).numpy().reshape(-1)
    return memoryview(raw)


def fingerprint(embeddings: Tensor, quantization: str = "") -> str:
    """sha256 of an embedding matrix [V, H] rounded to bfloat16, and of how the model's weights are quantized.

    Rounded, so that a model has one fingerprint whether it is loaded in float32 or in bfloat16. A quantized model is
    another one: its embeddings are the same, but prompts that were tuned on it are not as good on the original.
    """
    rounded = embeddings.detach().to("cpu", torch.bfloat16).contiguous()
    digest = hashlib.sha256(json.dumps(list(rounded.shape)).encode())
    digest.update(tensor_bytes(rounded))
    digest.update(quantization.encode())
    return digest.hexdigest()


def content_hash(tensor: Tensor, identity: Mapping[str, Any]) -> str:
    """sha256 over an fp32 tensor's shape and bytes and an identity in canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    digest = hashlib.sha256(f"{list(tensor.shape)}{canonical}".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
