"""Parts that several merges share: parameters, sums, sparsification, and the declaration of weighted sums."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from tpv.errors import TpvError

Function = TypeVar("Function", bound=Callable[..., Tensor])
Weights = tuple[float, ...] | None  # one for each vector; None for 1 each
Density = Annotated[float, Field(gt=0, le=1)]  # share of values to keep
Seed = Annotated[int, Field(ge=0, lt=2**63)]
_coefficients: dict[Callable[..., Tensor], Callable[..., Sequence[float]]] = {}


def weighted_sum(coefficients: Callable[..., Sequence[float]]) -> Callable[[Function], Function]:
    """Declare that a merge is a weighted sum, so that `.terms` can say what went in.

    Args:
        coefficients: `(count, *, parameters...) -> weights`: the weight of each of `count` vectors.
    """

    def declare(function: Function) -> Function:
        _coefficients[function] = coefficients
        return function

    return declare


def coefficients_of(function: Callable[..., Tensor]) -> Callable[..., Sequence[float]] | None:
    """What `weighted_sum` declared for a merge; None for any other."""
    return _coefficients.get(function)


def one_each(count: int, weights: Weights) -> Sequence[float]:
    """The weights of `count` vectors, by default 1 each.

    Raises:
        TpvError: another number of weights.
    """
    if weights is None:
        return [1.0] * count
    if len(weights) != count:
        raise TpvError("weights of a merge", expected=f"{count}, one for each vector", got=len(weights))
    return weights


def summed(vectors: Tensor, weights: Sequence[float]) -> Tensor:
    """sum_k weights[k] · vectors[k], added in order, as `a + b + c` does: [N, P, H] -> [P, H]."""
    total = vectors[0] * weights[0]
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        total = total + vector * weight
    return total


def keep_largest(vectors: Tensor, density: float) -> Tensor:
    """Set all but the largest magnitudes of each vector to zero: [N, P, H] -> [N, P, H].

    Args:
        density: the share of the P·H values to keep, at least one of them.
    """
    flat = vectors.flatten(1)
    count = max(1, int(density * flat.shape[1]))
    mask = torch.zeros_like(flat)
    for row, values in zip(mask, flat, strict=True):  # one at a time: which of equal magnitudes stay is as in PEFT
        row[values.abs().topk(count).indices] = 1
    return (flat * mask).view_as(vectors)
