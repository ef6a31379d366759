"""DARE (Yu et al., 2024): drop values at random and rescale."""

from __future__ import annotations

from torch import Tensor

from tpv.merging import weighted
from tpv.merging.sparsity import Density, Weights, random
from tpv.registry import register


@register.merge("dare", order=4)
def dare(
    vectors: Tensor, *, density: Density = 0.5, rescale: bool = True, weights: Weights = None, seed: int = 0
) -> Tensor:
    """DARE: a random share of each vector's values, rescaled, then summed."""
    return weighted(random(vectors, density, rescale, seed), weights).sum(dim=0)
