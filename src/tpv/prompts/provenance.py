"""Who a prompt or a vector is: plain data that travels with the tensor, never a parsed name."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

Architecture = Literal["encoder-decoder", "decoder-only"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelIdentity(_Frozen):
    """The model a prompt belongs to.

    Attributes:
        name: where it was loaded from; for people, it decides nothing.
        fingerprint: sha256 of the input-embedding matrix (see `fingerprint`); this decides.
        hidden_size: H, the width of an embedding.
        architecture: which kind of model reads the prompt; like the name, it decides nothing here.
    """

    name: str
    fingerprint: str
    hidden_size: int
    architecture: Architecture = "encoder-decoder"

    @model_serializer(mode="wrap")
    def _written(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = plain(self)
        if self.architecture == "encoder-decoder":  # all there was at first: files and hashes of then stay valid
            values.pop("architecture", None)
        return values

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint[:12]}, H={self.hidden_size})"


class Init(_Frozen):
    """A prompt's initialization.

    Attributes:
        kind: the initializer: `vocabulary`, `text`, `normal`, `zero` or a plugin's; `given` for a tensor made
            elsewhere.
        seed: of the draw, where there was one.
        token_ids: the vocabulary rows that were copied, where there were any.
        detail: the text, the standard deviation, a plugin's parameters, or the hash of a given tensor.
    """

    kind: str
    seed: int | None = None
    token_ids: tuple[int, ...] | None = None
    detail: str | None = None

    def __str__(self) -> str:
        if self.seed is not None:
            return f"{self.kind} seed {self.seed}"
        return f"{self.kind} {self.detail!r}" if self.detail else self.kind


class VectorTraining(_Frozen):
    """How a vector was trained that was trained as a vector, and not as a prompt (see `tpv.fit_vectors`).

    Attributes:
        starts: the initializer that a fresh initialization was drawn from at every step: `vocabulary`, `normal`, a
            plugin's, or `given` prompts; empty where the initialization was fixed, which is then the component's
            `init`.
        beside: tasks whose vectors were added at random while it trained, in name order.
        pool: origins of those among them that were there before and frozen.
        scales: its own factor was drawn from this range, and those of the frozen ones.
        seed: of all these draws.
        parameters: of the initializer, such as `limit`; None in files that tpv 0.1 wrote.
    """

    starts: str
    beside: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    scales: tuple[float, float] = (1.0, 1.0)
    seed: int = 0
    parameters: dict[str, Any] | None = None

    @model_serializer(mode="wrap")
    def _written(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = plain(self)
        if self.parameters is None:  # all there was at first: files and hashes of then stay valid
            values.pop("parameters", None)
        return values

    def __str__(self) -> str:
        known = ", ".join(f"{name} {value}" for name, value in (self.parameters or {}).items() if value is not None)
        ways = [f"a fresh {self.starts} initialization per step{f' ({known})' * bool(known)}"] * bool(self.starts)
        ways += [f"beside {', '.join(self.beside)}"] * bool(self.beside)
        ways += [f"scales {self.scales[0]:g} to {self.scales[1]:g}"] * (self.scales != (1.0, 1.0))
        return "; ".join(ways)


class Merge(_Frozen):
    """How vectors were merged into one that is no linear combination of them.

    Attributes:
        method: a name from `tpv.register.merge`.
        parameters: of the method, all of them.
        sources: the components of each vector that was merged, in order.
    """

    method: str
    parameters: dict[str, Any]
    sources: tuple[tuple["Component", ...], ...]


class Component(_Frozen):
    """One trained task vector inside a prompt or a sum: `coefficient` times it was added.

    Attributes:
        task: the task's name.
        data: fingerprint of the task's rows it was trained with, empty where unknown.
        origin: hash of the vector as it was trained; two trainings of a task are two components.
        init: the initialization it was trained from; None for a vector trained from many.
        coefficient: signed factor.
        training: how it was trained, where that was not from one initialization, in isolation.
        merge: what it was merged from, where it was not trained; `task` then says so in words.
    """

    task: str
    data: str = ""
    origin: str
    init: Init | None
    coefficient: float
    training: VectorTraining | None = None
    merge: Merge | None = None

    @model_serializer(mode="wrap")
    def _written(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = plain(self)
        for name in ("training", "merge"):
            if getattr(self, name) is None:  # all there was at first: files and hashes of then stay valid
                values.pop(name, None)
        return values

    @property
    def home(self) -> str:
        """Where and how it was trained, in words."""
        return "; ".join(str(part) for part in (self.init, self.training) if part is not None)


Merge.model_rebuild()
Components = tuple[Component, ...]
ROUNDING = 1e-12  # relative size below which a sum of coefficients is rounding and not a term


def combine(weighted: Iterable[tuple[float, Components]]) -> Components:
    """The linear combination of components: equal origins are added up, zeros dropped, order fixed.

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
    """Signed coefficient per task, in task order; trainings of one task are added up."""
    result: dict[str, float] = {}
    size: dict[str, float] = {}
    for part in components:
        result[part.task] = result.get(part.task, 0.0) + part.coefficient
        size[part.task] = max(size.get(part.task, 0.0), abs(part.coefficient))
    return {task: result[task] for task in sorted(result) if abs(result[task]) > ROUNDING * size[task]}


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return plain


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw little-endian bytes of a contiguous CPU tensor, without a copy."""
    raw: Any = tensor.view(torch.uint8).numpy().reshape(-1)
    return memoryview(raw)


def fingerprint(embeddings: Tensor) -> str:
    """sha256 of an embedding matrix [V, H] rounded to bfloat16.

    Rounded, so that a model has one fingerprint whether it is loaded in float32 or in bfloat16.
    """
    rounded = embeddings.detach().to("cpu", torch.bfloat16).contiguous()
    digest = hashlib.sha256(json.dumps(list(rounded.shape)).encode())
    digest.update(tensor_bytes(rounded))
    return digest.hexdigest()


def content_hash(tensor: Tensor, identity: Mapping[str, Any]) -> str:
    """sha256 over an fp32 tensor's shape and bytes and an identity in canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    digest = hashlib.sha256(f"{list(tensor.shape)}{canonical}".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
