"""What prompts and vectors share: an immutable matrix that knows which model it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from tpv.errors import IncompatibleError, TpvError, plain
from tpv.prompts.provenance import Components, ModelIdentity, content_hash, terms


class PromptMatrix:
    """An immutable fp32 matrix [P, H] that belongs to a model; what prompts and vectors share."""

    __array_ufunc__ = None  # numpy scalars then leave `scalar * vector` to us
    kinds: ClassVar[dict[str, type[PromptMatrix]]] = {}  # what a file may hold, by the name it gives it

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):
            PromptMatrix.kinds[cls.__name__] = cls

    @classmethod
    def restored(
        cls, tensor: Tensor, model: ModelIdentity, components: Components, identity: Mapping[str, Any]
    ) -> PromptMatrix:
        """The object that `identity` was of; what a file is read with.

        Raises:
            ValueError, KeyError: an identity that does not read.
        """
        return cls(tensor, model, components)

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
        own = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        finite = np.isfinite(own.numpy())  # numpy: torch would wake all its threads for a matrix this small
        if not finite.all():
            raise TpvError(
                f"tensor of a {type(self).__name__}",
                expected="finite values",
                got=f"{int((~finite).sum())} values that are not",
            )
        self._set(_tensor=own, model=model, components=components)

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
        """Signed coefficient of each task that went in, e.g. `{"mini/sst2": 1.0}`.

        A vector that was merged otherwise than linearly is one term, e.g. `ties(mini/sst2, mini/yelp)`; its
        `provenance` says what of.
        """
        return terms(self.components)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """What it is made of, as JSON-ready values: each component with its coefficient, data, training and merge."""
        return [part.model_dump(mode="json") for part in self.components]

    def head(self, rows: int) -> Self:
        """The same with its first `rows` rows only."""
        return type(self)(self._tensor[:rows], self.model, self.components)

    def norm(self) -> float:
        """Euclidean (Frobenius) norm over all P·H values."""
        return float(torch.linalg.vector_norm(self._tensor, dtype=torch.float64))

    def identity(self) -> dict[str, Any]:
        """Everything but the numbers, as JSON-ready values; what a file carries as metadata."""
        return {
            "kind": type(self).__name__,
            "model": self.model.model_dump(),
            "components": [part.model_dump() for part in self.components],
        }

    @cached_property
    def digest(self) -> str:
        """sha256 of content and identity; of the model, its fingerprint and width count, what else is said does not."""
        identity = self.identity()
        identity["model"] = {key: identity["model"][key] for key in ("fingerprint", "hidden_size")}
        return content_hash(self._tensor + 0.0, identity)  # -0.0 and 0.0 are equal, so their hashes must be

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        shape = f"[{self._tensor.shape[0]}, {self._tensor.shape[1]}]"
        return f"{type(self).__name__}({shape} of {plain(self.model.name)}, terms={self.terms})"

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
                fix="use prompts with the same number of tokens",
            )


def stack(items: Sequence[PromptMatrix]) -> Tensor:
    """A bank [K, P, H] of prompts or vectors of one model and shape.

    Raises:
        TpvError: an empty sequence. IncompatibleError: another model or shape among them.
    """
    return torch.stack(matrices(items))


def matrices(items: Sequence[PromptMatrix]) -> list[Tensor]:
    """The values [P, H] of each, not copied: for reading only. Raises as `stack` does."""
    if not items:
        raise TpvError("a bank of prompts", expected="at least one", got="none")
    for item in items[1:]:
        items[0].check_compatible(item)
    return [item._tensor for item in items]
