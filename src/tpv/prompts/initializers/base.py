"""What every initializer is, and how one is found by its name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.provenance import Init, content_hash
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone

MAX_TOKENS = 100_000  # far above any context; a slip of the finger must not fill the memory


class Initializer:
    """The base of initializers; see the package for what one provides.

    Attributes:
        name: what it is registered as.
        random: whether there is more than one initialization to draw.
    """

    name: ClassVar[str]
    random: ClassVar[bool] = True

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """One initialization [P, H], and its identity.

        Raises:
            TpvError: a number of tokens that it cannot draw, or a bad seed.
        """
        raise NotImplementedError

    def draw(self, backbone: Backbone, num_tokens: int, count: int, generator: torch.Generator) -> Tensor:
        """Fresh initializations [count, P, H] from the same distribution.

        Raises:
            TpvError: an initializer that has only one.
        """
        raise TpvError(
            f"initializer {self.name!r} has nothing to draw",
            expected="one with many initializations, such as vocabulary or normal",
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters, as JSON-ready values."""
        return {field.name: getattr(self, field.name) for field in fields(self)} if is_dataclass(self) else {}


class _Function(Initializer):
    """A plugin's function as an initializer."""

    def __init__(self, function: Callable[..., Tensor], values: Mapping[str, Any]) -> None:
        self._function, self._values = function, dict(values)

    @property
    def parameters(self) -> dict[str, Any]:
        return self._values

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        generator_of(seed)
        rows = self._function(backbone, check_count(num_tokens), seed, **self._values)
        shape = (num_tokens, backbone.identity.hidden_size)
        if not isinstance(rows, Tensor) or tuple(rows.shape) != shape:
            got = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise TpvError(f"initializer {self.name!r}", expected=f"a tensor {list(shape)}", got=got)
        return rows.float(), Init(kind=self.name, seed=seed, detail=json.dumps(self._values, sort_keys=True))

    def draw(self, backbone: Backbone, num_tokens: int, count: int, generator: torch.Generator) -> Tensor:
        seeds = torch.randint(2**62, (count,), generator=generator).tolist()
        return torch.stack([self.sample(backbone, num_tokens, seed)[0] for seed in seeds])


def check_count(num_tokens: object) -> int:
    """The number of tokens, if it is one."""
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or not 1 <= num_tokens <= MAX_TOKENS:
        raise TpvError(
            "number of prompt tokens", expected=f"a whole number from 1 to {MAX_TOKENS}", got=f"{num_tokens!r:.40}"
        )
    return num_tokens


def generator_of(seed: object) -> torch.Generator:
    """A random generator with this seed, if it is one."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise TpvError("seed of an initialization", expected="a whole number from 0 to 2^63 - 1", got=repr(seed))
    return torch.Generator().manual_seed(seed)


def given(tensor: Tensor) -> Init:
    """The identity of a tensor that came from elsewhere: its hash."""
    own = tensor.detach().to("cpu", torch.float32).contiguous()
    return Init(kind="given", detail=content_hash(own, {})[:16])


def make(init: str | Initializer, **parameters: Any) -> Initializer:
    """An initializer by its registered name.

    Args:
        init: the name; or an initializer, which is given back.
        parameters: its own.

    Raises:
        TpvError: an unknown name, or parameters that it does not have.
    """
    if isinstance(init, Initializer):
        if parameters:
            raise TpvError("parameters of an initializer that is made already", got=", ".join(parameters))
        return init
    entry = register.initializer[init]
    values = entry.checked(parameters, f"initializer {init!r}")
    thing: Any = entry.thing
    if not inspect.isclass(thing):
        thing = partial(type(entry.name, (_Function,), {"name": entry.name}), thing, values)
        values = {}
    made: Initializer = thing(**values)
    return made


def parse(text: str, num_tokens: int, seed: int) -> Initializer:
    """An initializer as the command line writes it: `vocabulary`, `normal`, `text:WORDS`, `NAME:key=value,key=value`.

    What can be refused without a model is refused here, before one is loaded.

    Raises:
        TpvError: an unknown name, parameters that do not fit, fewer than 1 token, a bad seed.
    """
    check_count(num_tokens)
    generator_of(seed)
    name, colon, rest = text.partition(":")
    if name == "text":
        return make("text", text=rest)
    pairs = [pair.partition("=") for pair in rest.split(",")] if colon else []
    if any(not equals for _, equals, _ in pairs):
        raise TpvError(f"parameters of initializer {name!r}", expected="key=value,key=value", got=repr(rest))
    return make(name, **{key.strip(): value.strip() for key, _, value in pairs})
