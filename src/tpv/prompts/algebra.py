"""The algebra of soft prompts and task prompt vectors (equations 2 to 7 of the paper).

vector = tuned - init            eq. 2, 5
moved  = other + scale * vector  eq. 3, 6
sum    = vector_a + vector_b     eq. 4, 7
-vector                          negation
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch
from torch import Tensor

from tpv.errors import IncompatibleError, TpvError, plain
from tpv.prompts.provenance import Component, Components, Init, ModelIdentity, combine, content_hash, terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tpv.models import Backbone


def _scale(value: object) -> float:
    """A finite real factor; bool is refused because `True * vector` is a slip, not a scale."""
    try:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise TpvError("scale of a vector", expected="a finite real number", got=f"{value!r:.60}")


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
        """Signed coefficient of each task that went in, e.g. `{"mini/sst2": 1.0}`."""
        return terms(self.components)

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
                fix="use prompts of the same number of tokens",
            )

    def cosine(self, other: Self) -> float:
        """Cosine of the two flattened matrices, in [-1, 1].

        Raises:
            IncompatibleError: another model or shape. TpvError: either one is zero.
        """
        from tpv.prompts.similarity import cosine_matrix

        if not isinstance(other, type(self)):
            raise TpvError("cosine", expected=f"another {type(self).__name__}", got=type(other).__name__)
        return float(cosine_matrix([self, other])[0, 1])

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file, atomically, with identity and content hash as metadata."""
        from tpv.prompts import storage

        storage.save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file written by `save`.

        Raises:
            DamagedFileError: truncated, altered, or not a file of this kind; the file is named.
        """
        from tpv.prompts import storage

        return storage.load(path, cls)


class SoftPrompt(PromptMatrix):
    """A soft prompt: P virtual tokens of width H put before the text of a frozen model.

    Args:
        tensor: [P, H], copied to fp32 on the CPU.
        model: the model it belongs to.
        init: where it started.
        components: the task vectors it holds beyond its start; empty for an untuned prompt.

    Raises:
        TpvError: wrong shape, or values that are not finite.
    """

    def __init__(self, tensor: Tensor, model: ModelIdentity, init: Init, components: Components = ()) -> None:
        super().__init__(tensor, model, components)
        self._set(init=init)

    init: Init

    @classmethod
    def sample(cls, backbone: Backbone, num_tokens: int = 100, seed: int = 0) -> Self:
        """Rows of the model's vocabulary, distinct ids below 5,000; see `initialise.from_vocabulary`."""
        from tpv.prompts import initializers

        tensor, init = initializers.from_vocabulary(backbone, num_tokens, seed)
        return cls(tensor, backbone.identity, init)

    @classmethod
    def from_text(cls, backbone: Backbone, text: str, num_tokens: int | None = None) -> Self:
        """Embeddings of a text's tokens, repeated or cut to `num_tokens`; see `initialise.from_text`."""
        from tpv.prompts import initializers

        tensor, init = initializers.from_text(backbone, text, num_tokens)
        return cls(tensor, backbone.identity, init)

    @classmethod
    def normal(cls, backbone: Backbone, num_tokens: int = 100, seed: int = 0, std: float | None = None) -> Self:
        """Gaussian rows; by default as wide as the model's embeddings; see `initialise.normal`."""
        from tpv.prompts import initializers

        tensor, init = initializers.normal(backbone, num_tokens, seed, std)
        return cls(tensor, backbone.identity, init)

    @classmethod
    def from_tensor(cls, backbone: Backbone, tensor: Tensor) -> Self:
        """A prompt from numbers made elsewhere, [P, H]; its start is known by its hash only."""
        from tpv.prompts import initializers

        return cls(tensor, backbone.identity, initializers.given(tensor))

    @classmethod
    def from_peft(
        cls,
        folder: str | PathLike[str],
        backbone: Backbone | None = None,
        keep_dead_rows: bool = False,
        *,
        start: SoftPrompt | None = None,
        task: str | None = None,
    ) -> SoftPrompt:
        """Read a PEFT prompt-tuning adapter, tpv's own or any other; see `interop.peft.load`.

        With `start` and `task` the result is what training on `task` made of `start`, so that
        `SoftPrompt.from_peft(folder, start=init, task="sst2") - init` is a task prompt vector.
        """
        from tpv.interop import peft

        return peft.load(folder, backbone, keep_dead_rows, start=start, task=task)

    def to_peft(self, folder: str | PathLike[str]) -> None:
        """Write a PEFT prompt-tuning adapter that `peft.PeftModel.from_pretrained` loads; see `interop.peft.save`."""
        from tpv.interop import peft

        peft.save(self, folder)

    def tuned_to(self, tensor: Tensor, task: str, data: str = "") -> Self:
        """The prompt that training on `task` made of this one: its terms gain the new vector.

        Args:
            tensor: the tuned values, [P, H].
            task: the task's name.
            data: fingerprint of the rows it was trained with.
        """
        delta = tensor.detach().to("cpu", torch.float32) - self._tensor
        origin = content_hash(delta.contiguous(), {"task": task, "start": self.digest})
        part = Component(task=task, data=data, origin=origin, init=self.init, coefficient=1.0)
        components = combine([(1.0, self.components), (1.0, (part,))])
        return type(self)(tensor, self.model, self.init, components)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"init": self.init.model_dump()}

    def _shifted(self, vector: TaskPromptVector, scale: float) -> SoftPrompt:
        self.check_compatible(vector)
        tensor = self._tensor + scale * vector._tensor
        components = combine([(1.0, self.components), (scale, vector.components)])
        return SoftPrompt(tensor, self.model, self.init, components)

    def __add__(self, other: TaskPromptVector) -> SoftPrompt:
        if isinstance(other, TaskPromptVector):
            return self._shifted(other, 1.0)
        raise TpvError(
            "a prompt can only be added to a vector",
            expected="SoftPrompt + TaskPromptVector",
            got=f"SoftPrompt + {type(other).__name__}",
            fix="subtract its start first: tuned - init is a vector",
        )

    __radd__ = __add__

    @overload
    def __sub__(self, other: TaskPromptVector) -> SoftPrompt: ...
    @overload
    def __sub__(self, other: SoftPrompt) -> TaskPromptVector: ...
    def __sub__(self, other: SoftPrompt | TaskPromptVector) -> SoftPrompt | TaskPromptVector:
        """`prompt - prompt` is a vector (eq. 2, 5); `prompt - vector` is a prompt."""
        if isinstance(other, TaskPromptVector):
            return self._shifted(other, -1.0)
        if not isinstance(other, SoftPrompt):
            raise TpvError(
                "only a prompt or a vector can be subtracted from a prompt", got=f"SoftPrompt - {type(other).__name__}"
            )
        self.check_compatible(other)
        if self.init != other.init:
            raise IncompatibleError(
                "these prompts have different starts, their difference is no task prompt vector",
                expected=f"a prompt that started from {self.init}",
                got=other.init,
                fix="subtract the prompt that training started from",
            )
        components = combine([(1.0, self.components), (-1.0, other.components)])
        return TaskPromptVector(self._tensor - other._tensor, self.model, components)

    def __mul__(self, other: object) -> SoftPrompt:
        raise TpvError("a prompt cannot be scaled, only a vector can", fix="use init + scale * vector")

    __rmul__ = __truediv__ = __mul__

    def __neg__(self) -> SoftPrompt:
        raise TpvError("a prompt cannot be negated, only a vector can", fix="use init - vector")


class TaskPromptVector(PromptMatrix):
    """What tuning added to a prompt's start: tau = tuned - init, [P, H] (eq. 2, 5).

    Args:
        tensor: [P, H], copied to fp32 on the CPU.
        model: the model it belongs to.
        components: the trained vectors it is a linear combination of.

    Raises:
        TpvError: wrong shape, or values that are not finite.
    """

    def _combined(self, other: TaskPromptVector, sign: float) -> TaskPromptVector:
        self.check_compatible(other)
        tensor = self._tensor + sign * other._tensor
        return TaskPromptVector(tensor, self.model, combine([(1.0, self.components), (sign, other.components)]))

    @overload
    def __add__(self, other: TaskPromptVector) -> TaskPromptVector: ...
    @overload
    def __add__(self, other: SoftPrompt) -> SoftPrompt: ...
    def __add__(self, other: SoftPrompt | TaskPromptVector) -> SoftPrompt | TaskPromptVector:
        if isinstance(other, TaskPromptVector):
            return self._combined(other, 1.0)
        if isinstance(other, SoftPrompt):
            return other + self
        raise TpvError(
            "a vector can only be added to a vector or a prompt", got=f"TaskPromptVector + {type(other).__name__}"
        )

    def __radd__(self, other: int) -> TaskPromptVector:
        if type(other) is int and other == 0:  # the start value of sum()
            return self
        raise TpvError(
            "a vector can only be added to a vector or a prompt", got=f"{type(other).__name__} + TaskPromptVector"
        )

    def __sub__(self, other: TaskPromptVector) -> TaskPromptVector:
        if isinstance(other, TaskPromptVector):
            return self._combined(other, -1.0)
        raise TpvError(
            "only a vector can be subtracted from a vector", got=f"TaskPromptVector - {type(other).__name__}"
        )

    def __mul__(self, scale: float) -> TaskPromptVector:
        factor = _scale(scale)
        return TaskPromptVector(self._tensor * factor, self.model, combine([(factor, self.components)]))

    __rmul__ = __mul__

    def __truediv__(self, scale: float) -> TaskPromptVector:
        factor = _scale(scale)
        if factor == 0.0:
            raise TpvError("scale of a vector", expected="a divisor other than 0", got=scale)
        components = combine([(1.0 / factor, self.components)])
        return TaskPromptVector(self._tensor / factor, self.model, components)

    def __rsub__(self, other: object) -> TaskPromptVector:
        raise TpvError(
            "a vector can only be subtracted from a vector or a prompt",
            got=f"{type(other).__name__} - TaskPromptVector",
            fix="use -vector to negate",
        )

    def __rtruediv__(self, other: object) -> TaskPromptVector:
        raise TpvError("nothing can be divided by a vector", got=f"{type(other).__name__} / TaskPromptVector")

    def __neg__(self) -> TaskPromptVector:
        return self * -1.0

    def apply(self, prompt: SoftPrompt, scale: float = 1.0) -> SoftPrompt:
        """`prompt + scale * self` (eq. 3, 6), for any prompt of the same model and shape.

        Raises:
            IncompatibleError: another model or shape. TpvError: a scale that is not a finite number.
        """
        if not isinstance(prompt, SoftPrompt):
            raise TpvError("a vector is applied to a prompt", expected="SoftPrompt", got=type(prompt).__name__)
        return prompt._shifted(self, _scale(scale))


def expression(coefficients: Mapping[str, float]) -> str:
    """Terms as a person writes them: `sst2 + 0.5 yelp - mnli`."""
    parts: list[str] = []
    for task, coefficient in coefficients.items():
        size = abs(coefficient)
        factor = "" if size == 1.0 else f"{size:g} "
        sign = "-" if coefficient < 0 else "+"
        parts.append(f"{sign} {factor}{task}" if parts else f"{'-' if coefficient < 0 else ''}{factor}{task}")
    return " ".join(parts) or "0"


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
