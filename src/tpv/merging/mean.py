"""The mean of vectors."""

from __future__ import annotations

from torch import Tensor

from tpv.registry import register


@register.merge("mean", order=2, weights=lambda count: [1.0 / count] * count)
def mean(vectors: Tensor) -> Tensor:
    """The mean."""
    return vectors.mean(dim=0)
