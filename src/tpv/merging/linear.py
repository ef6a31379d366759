"""Weighted sums: task arithmetic (Ilharco et al., 2023), and the paper's sums (eq. 4, 7)."""

from __future__ import annotations

from torch import Tensor

from tpv.merging import weighted
from tpv.merging.sparsity import Weights
from tpv.registry import register


def _weights(count: int, weights: Weights) -> list[float]:
    return [1.0] * count if weights is None else list(weights)


@register.merge("linear", order=1, weights=_weights)
def linear(vectors: Tensor, *, weights: Weights = None) -> Tensor:
    """The weighted sum; without weights the plain sum."""
    return weighted(vectors, weights).sum(dim=0)
