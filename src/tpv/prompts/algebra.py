"""The algebra of soft prompts and task prompt vectors (equations 2 to 7 of the paper).

vector = tuned - init            eq. 2, 5
moved  = other + scale * vector  eq. 3, 6
sum    = vector_a + vector_b     eq. 4, 7
-vector                          negation
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, overload

import torch
from torch import Tensor

from tpv.errors import IncompatibleError, TpvError, TpvWarning
from tpv.prompts import initializers, peft_format, storage
from tpv.prompts.matrix import PromptMatrix, cosine_matrix, matrices, restore, stack
from tpv.prompts.provenance import Component, Components, Init, ModelIdentity, combine, content_hash, expression
from tpv.registry import provided

if TYPE_CHECKING:
    import pyarrow as pa

    from tpv.models import Backbone
    from tpv.prompts.initializers import Initializer

__all__ = [
    "PromptMatrix",
    "SoftPrompt",
    "TaskPromptVector",
    "any_of_bytes",
    "cosine_matrix",
    "expression",
    "load_any",
    "matrices",
    "stack",
]


def _scale(value: object) -> float:
    """A finite real factor; bool is refused because `True * vector` is a slip, not a scale."""
    try:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise TpvError("scale of a vector", expected="a finite real number", got=f"{value!r:.60}")


def _identify(name: str) -> ModelIdentity:
    """The identity of a model that is known by name only: it has to be loaded, which a higher room does."""
    backbone: Backbone = provided("tpv.models", "load_backbone")(name, device="cpu")
    return backbone.identity


def _restored_prompt(tensor: Tensor, identity: Mapping[str, Any]) -> SoftPrompt:
    item = restore(tensor, identity)
    if not isinstance(item, SoftPrompt):
        raise TypeError(f"expected a SoftPrompt, got a {type(item).__name__}")
    return item


class SoftPrompt(PromptMatrix):
    """A soft prompt: P virtual tokens of width H put before the text of a frozen model.

    Args:
        tensor: [P, H], copied to fp32 on the CPU.
        model: the model it belongs to.
        init: how its values were initialized.
        components: the task vectors added to the initialization; empty for an untuned prompt.

    Attributes:
        history: of the training that made it, see `tpv.fit`; None of any other prompt, since files do not keep it.

    Raises:
        TpvError: wrong shape, or values that are not finite.
    """

    def __init__(self, tensor: Tensor, model: ModelIdentity, init: Init, components: Components = ()) -> None:
        super().__init__(tensor, model, components)
        self._set(init=init)

    init: Init
    history: pa.Table | None = None

    def with_history(self, history: pa.Table) -> Self:
        """The same prompt, with the history of its training beside it."""
        made = type(self)(self._tensor, self.model, self.init, self.components)
        made._set(history=history)
        return made

    @classmethod
    def sample(
        cls,
        backbone: Backbone,
        num_tokens: int = 100,
        seed: int = 0,
        init: str | Initializer = "vocabulary",
        **parameters: Any,
    ) -> Self:
        """An untuned prompt; by default rows of the model's vocabulary, from the first 5,000 token ids.

        Args:
            num_tokens: P, the number of rows.
            seed: of the draw.
            init: name of a registered initializer, such as `vocabulary`, `normal`, `text` or `zero`, or one itself.
            parameters: of the initializer, such as `limit=0` to draw from the whole vocabulary.

        Raises:
            TpvError: unknown initializer or parameter, or a value that the initializer refuses.
        """
        tensor, record = initializers.make(init, **parameters).sample(backbone, num_tokens, seed)
        return cls(tensor, backbone.identity, record)

    @classmethod
    def from_text(cls, backbone: Backbone, text: str, num_tokens: int | None = None) -> Self:
        """Embeddings of a text's tokens, repeated or truncated to `num_tokens`, by default as many as the text has.

        Raises:
            TpvError: a text without tokens, or fewer than 1 token asked for.
        """
        initializer = initializers.Text(text)
        count = initializer.length(backbone) if num_tokens is None else num_tokens
        return cls.sample(backbone, count, init=initializer)

    @classmethod
    def normal(cls, backbone: Backbone, num_tokens: int = 100, seed: int = 0, std: float | None = None) -> Self:
        """Gaussian rows; `std` is by default the root mean square of the model's embeddings.

        Raises:
            TpvError: fewer than 1 token, or a deviation that is not positive and finite.
        """
        return cls.sample(backbone, num_tokens, seed, initializers.Normal(std))

    @classmethod
    def from_tensor(cls, backbone: Backbone, tensor: Tensor) -> Self:
        """A prompt from values made elsewhere, [P, H]; only their hash identifies the initialization."""
        return cls(tensor, backbone.identity, initializers.given(tensor))

    @classmethod
    def from_peft(
        cls,
        folder: str | PathLike[str],
        backbone: Backbone | None = None,
        keep_dead_rows: bool = False,
        *,
        init: SoftPrompt | None = None,
        task: str | None = None,
    ) -> SoftPrompt:
        """Read a PEFT prompt-tuning adapter, tpv's own or any other.

        What `to_peft` wrote comes back unchanged, initialization and terms included, without loading a model. The
        initialization of any other adapter is unknown, unless you pass it: then the result is what training on `task`
        made of `init`, so that `SoftPrompt.from_peft(folder, init=init, task="sst2") - init` is a task prompt vector.

        Args:
            folder: holds `adapter_config.json` and `adapter_model.safetensors`.
            backbone: the model it was trained on; without it and without `init`, tpv loads the model that the adapter
                names, to learn its fingerprint.
            keep_dead_rows: keep the rows that PEFT allocates for an encoder-decoder model and never reads. A backbone
                reads all rows of such a prompt.
            init: the prompt before training.
            task: what it was trained on; with `init` only.

        Raises:
            TpvError: no such folder or file, another method than prompt tuning, a model that cannot be loaded.
            DamagedFileError: config or weights that cannot be read, do not fit each other, or hold NaN.
            IncompatibleError: an adapter of another model, width or kind of model; an `init` of another shape.
        """
        if (init is None) != (task is None):
            got = "only task" if init is None else "only init"
            raise TpvError(f"initialization of {folder}", expected="both init and task, or neither", got=got)
        if task is not None and not task.strip():
            raise TpvError(f"task of {folder}", expected="a name", got=repr(task))
        adapter = peft_format.read(folder, _restored_prompt)
        own = adapter.own
        known = [item.model for item in (own, init) if item is not None]
        model = adapter.model_of([*known, backbone.identity] if backbone is not None else known, _identify)
        tensor, dead = adapter.rows(keep_dead_rows), adapter.dead_rows
        if init is not None and task is not None:
            adapter.check_init(tensor, init._tensor, own.init if own else None, init.init)
            prompt = init.tuned_to(tensor, task)
        else:
            prompt = own if own is not None and not dead else SoftPrompt(tensor, model, initializers.given(tensor))
        if dead and not keep_dead_rows:
            warnings.warn(adapter.dropped(), TpvWarning, stacklevel=2)
        return prompt

    def to_peft(self, folder: str | PathLike[str]) -> None:
        """Write a PEFT prompt-tuning adapter that `peft.PeftModel.from_pretrained(model, folder)` loads.

        The prompt's identity and hash travel in the metadata of the weights, which PEFT ignores, so that `from_peft`
        restores the prompt unchanged. An adapter that tpv wrote before is replaced.

        Raises:
            TpvError: the folder cannot be written, or holds an adapter that tpv did not write.
        """
        peft_format.write(folder, self, self.model, self.num_tokens)

    def tuned_to(self, tensor: Tensor, task: str, data: str = "") -> Self:
        """What training on `task` made of this prompt: the result gains the trained vector as a component.

        Args:
            tensor: the tuned values, [P, H].
            task: name of the task.
            data: fingerprint of the rows it was trained with.
        """
        delta = tensor.detach().to("cpu", torch.float32) - self._tensor
        origin = content_hash(delta.contiguous(), {"task": task, "start": self.digest})
        part = Component(task=task, data=data, origin=origin, init=self.init, coefficient=1.0)
        components = combine([(1.0, self.components), (1.0, (part,))])
        return type(self)(tensor, self.model, self.init, components)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"init": self.init.model_dump()}

    @classmethod
    def _restored(
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
            fix="subtract its initialization first: tuned - init is a vector",
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
        if not self.init.matches(other.init):
            raise IncompatibleError(
                "these prompts have different initializations, so their difference is not a task prompt vector",
                expected=f"a prompt initialized from {self.init}",
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
    """What tuning added to a prompt's initialization: tau = tuned - init, [P, H] (eq. 2, 5).

    Args:
        tensor: [P, H], copied to fp32 on the CPU.
        model: the model it belongs to.
        components: the trained or merged vectors it is a linear combination of.

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
        if type(other) is int and other == 0:  # what sum() begins with
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


def load_any(path: str | PathLike[str], called: str | None = None) -> SoftPrompt | TaskPromptVector:
    """Read a prompt or a vector, whichever the file contains.

    Args:
        called: what error messages call the file, where its path means nothing to the user.

    Raises:
        TpvError: no such file, or not readable.
        DamagedFileError: truncated, altered, or not written by `save`.
    """
    item = storage.load(path, restore, called)
    assert isinstance(item, SoftPrompt | TaskPromptVector)
    return item


def any_of_bytes(content: bytes, called: object) -> tuple[SoftPrompt | TaskPromptVector, dict[str, Any]]:
    """The prompt or vector in the bytes of a file, and the file's metadata.

    Args:
        called: what error messages call the bytes.

    Raises:
        DamagedFileError: truncated, altered, or not written by `save`.
    """
    item, metadata = storage.loads(content, restore, called)
    assert isinstance(item, SoftPrompt | TaskPromptVector)
    return item, metadata
