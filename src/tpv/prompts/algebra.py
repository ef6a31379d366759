"""The algebra of soft prompts and task prompt vectors (equations 2 to 7 of the paper).

vector = tuned - init            eq. 2, 5
moved  = other + scale * vector  eq. 3, 6
sum    = vector_a + vector_b     eq. 4, 7
-vector                          negation
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, overload

import torch
from torch import Tensor

from tpv.errors import IncompatibleError, TpvError
from tpv.prompts import initializers, storage
from tpv.prompts.matrix import PromptMatrix
from tpv.prompts.provenance import Component, Components, Init, ModelIdentity, combine, content_hash
from tpv.prompts.similarity import cosine_matrix
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone


def _scale(value: object) -> float:
    """A finite real factor; bool is refused because `True * vector` is a slip, not a scale."""
    try:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise TpvError("scale of a vector", expected="a finite real number", got=f"{value!r:.60}")


class _Stored(PromptMatrix):
    """A matrix that can be compared, saved and loaded."""

    def cosine(self, other: Self) -> float:
        """Cosine of the two flattened matrices, in [-1, 1].

        Raises:
            IncompatibleError: another model or shape. TpvError: either one is zero.
        """
        if not isinstance(other, type(self)):
            raise TpvError("cosine", expected=f"another {type(self).__name__}", got=type(other).__name__)
        return float(cosine_matrix([self, other])[0, 1])

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file, atomically, with identity and content hash as metadata."""
        storage.save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file written by `save`.

        Raises:
            DamagedFileError: truncated, altered, or not a file of this kind; the file is named.
        """
        return storage.load(path, cls)


class SoftPrompt(_Stored):
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
    def sample(
        cls,
        backbone: Backbone,
        num_tokens: int = 100,
        seed: int = 0,
        init: str | initializers.Initializer = "vocabulary",
        **parameters: Any,
    ) -> Self:
        """An untrained prompt, by default distinct embeddings of the model's 5,000 first token ids.

        Args:
            num_tokens: P, the number of virtual tokens.
            seed: of the draw.
            init: a registered initializer (`vocabulary`, `normal`, ...), or one that was made already.
            parameters: of the initializer, such as `limit` of `vocabulary`; see `tpv.prompts.initializers`.

        Raises:
            TpvError: an unknown initializer, parameters it does not have, or a number of tokens it cannot draw.
        """
        tensor, identity = initializers.make(init, **parameters).sample(backbone, num_tokens, seed)
        return cls(tensor, backbone.identity, identity)

    @classmethod
    def from_text(cls, backbone: Backbone, text: str, num_tokens: int | None = None) -> Self:
        """Embeddings of a text's tokens, repeated or truncated to `num_tokens`; see `initializers.text.Text`."""
        tensor, init = initializers.Text(text=text).embed(backbone, num_tokens)
        return cls(tensor, backbone.identity, init)

    @classmethod
    def normal(cls, backbone: Backbone, num_tokens: int = 100, seed: int = 0, std: float | None = None) -> Self:
        """Gaussian rows; by default as wide as the model's embeddings; see `initializers.normal.Normal`."""
        return cls.sample(backbone, num_tokens, seed, initializers.Normal(std=std))

    @classmethod
    def from_tensor(cls, backbone: Backbone, tensor: Tensor) -> Self:
        """A prompt from numbers made elsewhere, [P, H]; its initialization is known by its hash only."""
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
        prompt: SoftPrompt = register.format["peft"].thing.load(
            folder, backbone, keep_dead_rows, start=start, task=task
        )
        return prompt

    def to_peft(self, folder: str | PathLike[str]) -> None:
        """Write a PEFT prompt-tuning adapter that `peft.PeftModel.from_pretrained` loads; see `interop.peft.save`."""
        register.format["peft"].thing.save(self, folder)

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

    def head(self, rows: int) -> Self:
        return type(self)(self._tensor[:rows], self.model, self.init, self.components)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"init": self.init.model_dump()}

    @classmethod
    def restored(
        cls, tensor: Tensor, model: ModelIdentity, components: Components, identity: Mapping[str, Any]
    ) -> SoftPrompt:
        return cls(tensor, model, Init.model_validate(identity["init"]), components)

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


class TaskPromptVector(_Stored):
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
