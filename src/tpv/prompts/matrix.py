"""What prompts and vectors share: an immutable matrix of values that belongs to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tpv.errors import IncompatibleError, TpvError, plain
from tpv.prompts import storage
from tpv.prompts.provenance import Component, Components, ModelIdentity, content_hash, described, provenance, terms
from tpv.prompts.similarity import cosines

_components = TypeAdapter(tuple[Component, ...])
KINDS: dict[str, type[PromptMatrix]] = {}  # what a file can hold, by the name in its identity


class PromptMatrix:
    """An immutable fp32 matrix [P, H] that belongs to a model; what prompts and vectors share."""

    __array_ufunc__ = None  # numpy scalars then leave `scalar * vector` to us

    def __init__(self, tensor: Tensor, model: ModelIdentity, components: Components) -> None:
        if tensor.ndim != 2 or 0 in tensor.shape:
            raise TpvError(
                f"tensor of a {type(self).__name__}", expected="shape [P, H], both at least 1", got=list(tensor.shape)
            )
        if tensor.shape[1] != model.hidden_size:
            raise IncompatibleError(
                f"tensor of a {type(self).__name__} does not fit model {model}",
                expected=f"[P, {model.hidden_size}]",
                got=list(tensor.shape),
            )
        values = tensor.detach().to("cpu", torch.float32)
        own = torch.from_numpy(np.array(values.numpy(), order="C"))  # numpy: torch wakes all its threads for so little
        finite = np.isfinite(own.numpy())
        if not finite.all():
            raise TpvError(
                f"tensor of a {type(self).__name__}",
                expected="finite values",
                got=f"{int((~finite).sum())} values that are not",
            )
        self._set(_tensor=own, model=model, components=components)

    def __init_subclass__(cls) -> None:
        KINDS[cls.__name__] = cls

    _tensor: Tensor
    model: ModelIdentity
    components: Components

    def _set(self, **values: object) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise TpvError(
            f"a {type(self).__name__} cannot be changed", got=f"an assignment to .{name}", fix="calculate a new one"
        )

    @property
    def tensor(self) -> Tensor:
        """A copy of the values, torch fp32 [P, H]; changing it changes nothing here."""
        return self._tensor.clone()

    @property
    def num_tokens(self) -> int:
        """P, the number of rows."""
        return self._tensor.shape[0]

    @property
    def terms(self) -> dict[str, float]:
        """Signed coefficient of each task that went in, e.g. `{"mini/sst2": 1.0}`; empty for an untuned prompt.

        Raises:
            TpvError: a merge other than a weighted sum went in (see `tpv.merge`), so that no coefficients describe
                it; `provenance` does.
        """
        return terms(self.components)

    @property
    def provenance(self) -> dict[str, Any]:
        """What went in and how, as JSON-ready values: a `method`, its `parameters` and its `sources`.

        A weighted sum has the method `linear` and a weight for each trained vector; a merge has its own method and
        parameters, and each of its sources has a provenance in turn.
        """
        return provenance(self.components)

    @property
    def expression(self) -> str:
        """What went in, for people: `sst2 + 0.5 yelp`, or `ties(sst2, yelp)`; `0` where nothing did."""
        return described(self.components)

    def norm(self) -> float:
        """Euclidean (Frobenius) norm over all P·H values."""
        return float(torch.linalg.vector_norm(self._tensor, dtype=torch.float64))

    def identity(self) -> dict[str, Any]:
        """Everything but the values, JSON-ready; a file carries it as metadata."""
        return {
            "kind": type(self).__name__,
            "model": self.model.model_dump(),
            "components": [part.model_dump() for part in self.components],
        }

    @cached_property
    def digest(self) -> str:
        """sha256 of values and identity; of the model, only fingerprint and width count."""
        identity = self.identity()
        identity["model"] = {key: identity["model"][key] for key in ("fingerprint", "hidden_size")}
        unsigned = self._tensor.numpy() + np.float32(0.0)  # -0.0 and 0.0 are equal, so their hashes must be
        return content_hash(torch.from_numpy(unsigned), identity)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        shape = f"[{self._tensor.shape[0]}, {self._tensor.shape[1]}]"
        merged = any(part.merge is not None for part in self.components)
        content = plain(self.expression) if merged else f"terms={self.terms}"
        return f"{type(self).__name__}({shape} of {plain(self.model.name)}, {content})"

    def check_compatible(self, other: PromptMatrix) -> None:
        """Refuse another model or another shape.

        Raises:
            IncompatibleError: with both sides named.
        """
        if self.model.fingerprint != other.model.fingerprint:
            raise IncompatibleError(
                "these belong to different models",
                expected=self.model,
                got=other.model,
                fix="a vector works only on the model it was trained on",
            )
        if self._tensor.shape != other._tensor.shape:
            raise IncompatibleError(
                "these have different shapes",
                expected=list(self._tensor.shape),
                got=list(other._tensor.shape),
                fix="use prompts of the same number of tokens",
            )

    def cosine(self, other: Self) -> float:
        """Cosine of the two flattened matrices, in [-1, 1].

        Raises:
            IncompatibleError: another model or shape. TpvError: either one is zero.
        """
        if not isinstance(other, type(self)):
            raise TpvError("cosine", expected=f"another {type(self).__name__}", got=type(other).__name__)
        return float(cosine_matrix([self, other])[0, 1])

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file, atomically, with identity and content hash as metadata.

        Raises:
            TpvError: the name does not end in .safetensors, or the folder cannot be written.
        """
        storage.save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file written by `save`.

        Raises:
            TpvError: no such file, not readable, or the file holds the other kind of matrix.
            DamagedFileError: truncated, altered, or not written by `save`.
        """
        item = storage.load(path, restore)
        if not isinstance(item, cls):
            raise TpvError(f"{path} holds another kind of matrix", expected=cls.__name__, got=type(item).__name__)
        return item

    @classmethod
    def _restored(
        cls, tensor: Tensor, model: ModelIdentity, components: Components, identity: Mapping[str, Any]
    ) -> PromptMatrix:
        """The content of a file; `identity` adds what is specific to this kind."""
        return cls(tensor, model, components)


def restore(tensor: Tensor, identity: Mapping[str, Any]) -> PromptMatrix:
    """The prompt or vector of these values [P, H] and this identity.

    Raises:
        ValueError, KeyError, TypeError: the identity cannot be read. TpvError: the values do not fit it.
    """
    model = ModelIdentity.model_validate(identity["model"])
    components = _components.validate_python(identity["components"])
    return KINDS[identity["kind"]]._restored(tensor, model, components, identity)


def matrices(items: Sequence[PromptMatrix]) -> list[Tensor]:
    """The values [P, H] of each, not copied: for reading only. Raises as `stack` does."""
    if not items:
        raise TpvError("a bank of prompts", expected="at least one", got="none")
    for item in items[1:]:
        items[0].check_compatible(item)
    return [item._tensor for item in items]


def stack(items: Sequence[PromptMatrix]) -> Tensor:
    """A bank [K, P, H] of prompts or vectors of one model and shape.

    Raises:
        TpvError: an empty sequence. IncompatibleError: another model or shape among them.
    """
    return torch.stack(matrices(items))


def cosine_matrix(items: Sequence[PromptMatrix]) -> Tensor:
    """Cosine of every pair of prompts or vectors, fp32 [N, N], symmetric with a diagonal of exactly 1.

    Each item counts as one flattened vector of P·H values.

    Raises:
        TpvError: no items, or one that is all zero. IncompatibleError: another model or shape.
    """
    return cosines(matrices(items))
