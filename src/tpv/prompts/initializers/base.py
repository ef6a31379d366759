"""What every initializer has, and how a plugin's plain function becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.provenance import Init, Parameters, content_hash
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone

MOST_TOKENS = 100_000  # far above any context, so that a typing error does not fill the memory
SEEDS = 2**62  # `draw` passes seeds below this to `sample`


def check(num_tokens: object, seed: object = 0) -> None:
    """Refuse what no initializer takes; needs no model.

    Raises:
        TpvError: a number of tokens or a seed that is not a whole number, or out of range.
    """
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or not 1 <= num_tokens <= MOST_TOKENS:
        raise TpvError(
            "number of prompt tokens", expected=f"a whole number from 1 to {MOST_TOKENS}", got=f"{num_tokens!r:.40}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise TpvError("seed of an initialization", expected="a whole number from 0 to 2^63 - 1", got=f"{seed!r:.40}")


def given(tensor: Tensor) -> Init:
    """The record of a tensor that was made elsewhere: its hash."""
    own = tensor.detach().to("cpu", torch.float32).contiguous()
    return Init(kind="given", detail=content_hash(own, {})[:16])


@dataclass(frozen=True)
class Initializer(ABC):
    """A way to make the values of an untuned prompt. Subclasses are frozen dataclasses; their fields are parameters.

    Register a subclass with `@tpv.register.initializer("name")`. It has to implement `sample`; implement `draw` too
    where there is a faster way than one `sample` after another.

    Attributes:
        random: whether the values depend on the seed, so that there is a distribution to draw from.
    """

    random: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """The name it is registered under."""
        return next(entry.name for entry in register.initializer if entry.thing is type(self))

    @property
    def parameters(self) -> Parameters:
        """All parameters with their values, JSON-ready."""
        return _json({each.name: getattr(self, each.name) for each in fields(self)})

    @abstractmethod
    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """The values of one prompt, fp32 [P, H], and the record of where they came from.

        Raises:
            TpvError: the number of tokens or the seed is out of range, or the model does not allow it.
        """

    def draw(self, backbone: Backbone, num_tokens: int, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws from the distribution that `sample` draws from, fp32 [count, P, H].

        Raises:
            TpvError: see `sample`; also if there is only one value to draw.
        """
        self.check_random()
        seeds = torch.randint(SEEDS, (count,), generator=generator).tolist()
        return torch.stack([self.sample(backbone, num_tokens, seed)[0] for seed in seeds])

    def check_random(self) -> None:
        """Refuse to draw if there is only one possible value.

        Raises:
            TpvError: it is so.
        """
        if not self.random:
            raise TpvError(
                f"initializer {self.kind!r} has only one value", expected="a random one, such as vocabulary or normal"
            )

    def record(self, seed: int | None = None, token_ids: tuple[int, ...] | None = None) -> Init:
        """The record of a sample, with the parameters that differ from their defaults."""
        declared = register.initializer[self.kind].parameters.model_fields
        defaults = _json({name: each.get_default(call_default_factory=True) for name, each in declared.items()})
        changed = {name: value for name, value in self.parameters.items() if value != defaults[name]}
        return Init(kind=self.kind, seed=seed, token_ids=token_ids, parameters=changed or None)


def _json(values: Mapping[str, Any]) -> Parameters:
    """The values as JSON has them; what it has no form for, such as a default that is missing, becomes text."""
    ready: Parameters = to_jsonable_python(values, fallback=repr)
    return ready


@dataclass(frozen=True)
class FromFunction(Initializer):
    """A plain function `(backbone, num_tokens, seed, *, parameters...) -> Tensor [P, H]` as an initializer.

    Args:
        name: the name it is registered under.
        values: its parameters.
    """

    name: str
    function: Callable[..., Tensor]
    values: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return self.name

    @property
    def parameters(self) -> Parameters:
        return _json(self.values)

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        check(num_tokens, seed)
        tensor = self.function(backbone, num_tokens, seed, **self.values)
        shape = [num_tokens, backbone.identity.hidden_size]
        if not isinstance(tensor, Tensor) or list(tensor.shape) != shape:
            raise TpvError(
                f"return value of initializer {self.name!r}",
                expected=f"a tensor {shape}",
                got=list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__,
            )
        return tensor.detach().to("cpu", torch.float32), self.record(seed)
