"""Merging task prompt vectors: a file a method, each a pure function of stacked vectors [N, P, H]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor

from tpv.errors import TpvError
from tpv.merging.parts import coefficients_of
from tpv.prompts.algebra import TaskPromptVector, stack
from tpv.prompts.provenance import Component, Components, Merge, Source, combine, content_hash
from tpv.registry import register

__all__ = ["merge"]


def merge(vectors: Sequence[TaskPromptVector], method: str = "linear", **parameters: Any) -> TaskPromptVector:
    """Merge task prompt vectors into one.

    Args:
        vectors: at least one, all of the same model and shape; `slerp` takes exactly two. Their order matters where
            there are weights or a seed.
        method: name of a registered merge: `linear` (a weighted sum), `mean`, `ties`, `dare`, `dare_ties`, `slerp`,
            `breadcrumbs`, `learned`, or that of a plugin.
        parameters: of the method, such as `weights=[1.0, 0.5]` or `density=0.2`; `learned` takes `backbone=` and
            `task=`, whose training rows it learns the weights from.

    Returns:
        A vector. `.terms` says what a `linear`, `mean` or `learned` merge holds; for any other method `.provenance`
        holds the method, its parameters and its sources, which stay with the vector when it is scaled, added or saved.

    Raises:
        TpvError: no vectors, something that is not one, an unknown method or parameter, or a value that does not fit.
        IncompatibleError: vectors of different models or shapes.
    """
    items = _checked(vectors)
    entry = register.merge[method]
    values = entry.checked(parameters)
    if entry.about.get("learns"):
        stack(items)  # one model and one shape
        return _weighted(items, method, entry.thing(items, **values))
    tensor = entry.thing(stack(items), **values)
    if not isinstance(tensor, Tensor) or tensor.shape != items[0].tensor.shape:
        raise TpvError(
            f"return value of merge {method!r}",
            expected=f"a tensor {list(items[0].tensor.shape)}",
            got=list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__,
        )
    return TaskPromptVector(tensor, items[0].model, _components(items, method, entry.thing, values, tensor))


def _weighted(items: Sequence[TaskPromptVector], method: str, weights: Tensor) -> TaskPromptVector:
    """The sum of vectors with learned weights, [N], or [N, P] with one for each token of each."""
    if weights.ndim == 1:
        return merge(items, "linear", weights=weights.tolist())
    tensor = (stack(items) * weights[:, :, None]).sum(0)
    return TaskPromptVector(tensor, items[0].model, _recorded(items, method, {"weights": weights.tolist()}, tensor))


def _checked(vectors: Sequence[TaskPromptVector]) -> list[TaskPromptVector]:
    if isinstance(vectors, TaskPromptVector):
        raise TpvError("vectors to merge", expected="a list of them", got="one vector", fix="write [vector]")
    items = list(vectors)
    wrong = next((item for item in items if not isinstance(item, TaskPromptVector)), None)
    if wrong is not None:
        raise TpvError(
            "vectors to merge",
            expected="TaskPromptVector",
            got=type(wrong).__name__,
            fix="tuned - init is the vector of a prompt",
        )
    if not items:
        raise TpvError("vectors to merge", expected="at least one", got="none")
    return items


def _components(
    items: Sequence[TaskPromptVector], method: str, function: Any, values: dict[str, Any], tensor: Tensor
) -> Components:
    """What the result is made of: the components of a weighted sum, or one that records the merge."""
    coefficients = coefficients_of(function)
    if coefficients is not None:
        weights = coefficients(len(items), **values)
        return combine(list(zip(weights, [item.components for item in items], strict=True)))
    return _recorded(items, method, to_jsonable_python(values), tensor)


def _recorded(items: Sequence[TaskPromptVector], method: str, parameters: dict[str, Any], tensor: Tensor) -> Components:
    """The record of a merge that is not a weighted sum."""
    record = Merge(
        method=method,
        parameters=parameters,
        sources=tuple(Source(digest=item.digest, components=item.components) for item in items),
    )
    own = tensor.detach().to("cpu", torch.float32).contiguous()
    origin = content_hash(own, {"merge": record.model_dump(mode="json")})
    return (Component(task="", origin=origin, init=None, coefficient=1.0, merge=record),)
