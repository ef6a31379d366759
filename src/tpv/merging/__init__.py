"""Merging: from several vectors to one. A file a method; each registers itself with `@tpv.register.merge("ties")`.

A merge is a pure function of the vectors [N, P, H], float32, to one [P, H]; its keyword-only arguments are its
parameters. What is random takes a `seed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.algebra import TaskPromptVector
from tpv.prompts.matrix import stack
from tpv.prompts.provenance import Component, Merge, combine, content_hash, plain_values
from tpv.registry import register

__all__ = ["merge"]


def merge(vectors: Sequence[TaskPromptVector], method: str = "linear", **parameters: Any) -> TaskPromptVector:
    """One vector from several of one model and shape.

    Args:
        vectors: at least one.
        method: a registered merge: `linear`, `mean`, `ties`, `dare`, `dare_ties`, `slerp`, `breadcrumbs`, or a
            plugin's.
        parameters: of the method; see `tpv registry merge`.

    Returns:
        The merged vector. Of a linear merge `.terms` are the coefficients of the tasks; any other is one term of its
        own, whose `.provenance` holds the method, its parameters and what was merged.

    Raises:
        TpvError: no vectors, an unknown method, parameters that do not fit, or a result that is not [P, H] and finite.
        IncompatibleError: vectors of different models or shapes.
    """
    items = list(vectors)
    for item in items:
        if not isinstance(item, TaskPromptVector):
            raise TpvError("vectors to merge", expected="TaskPromptVector", got=type(item).__name__)
    bank = stack(items)
    entry = register.merge[method]
    values = entry.checked(parameters, f"merge {method!r}")
    merged = entry.thing(bank, **values)
    if not isinstance(merged, Tensor) or merged.shape != bank.shape[1:]:
        got = list(merged.shape) if isinstance(merged, Tensor) else type(merged).__name__
        raise TpvError(f"result of merge {method!r}", expected=f"a tensor {list(bank.shape[1:])}", got=got)
    weights = entry.about.get("weights")
    if weights is not None:
        factors: Sequence[float] = weights(len(items), **values)
        parts = [(factor, item.components) for factor, item in zip(factors, items, strict=True)]
        return TaskPromptVector(merged, items[0].model, combine(parts))
    record = Merge(method=method, parameters=plain_values(values), sources=tuple(item.components for item in items))
    names = ", ".join(dict.fromkeys(task for item in items for task in item.terms))
    origin = content_hash(merged.float().contiguous(), {"merge": record.model_dump(mode="json")})
    part = Component(task=f"{method}({names})", origin=origin, init=None, coefficient=1.0, merge=record)
    return TaskPromptVector(merged, items[0].model, (part,))


def weighted(vectors: Tensor, weights: Sequence[float] | None) -> Tensor:
    """The vectors [N, P, H], each times its weight.

    Raises:
        TpvError: another number of weights than vectors.
    """
    if weights is None:
        return vectors
    if len(weights) != len(vectors):
        raise TpvError("weights of a merge", expected=f"{len(vectors)}, one per vector", got=len(weights))
    return vectors * torch.tensor(weights, dtype=vectors.dtype)[:, None, None]
