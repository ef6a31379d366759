"""DARE's random values, merged as TIES merges (Yu et al., 2024)."""

from __future__ import annotations

from torch import Tensor

from tpv.merging import weighted
from tpv.merging.sparsity import Density, Signs, Weights, disjoint_mean, elect, random
from tpv.registry import register


@register.merge("dare_ties", order=5)
def dare_ties(
    vectors: Tensor,
    *,
    density: Density = 0.5,
    rescale: bool = True,
    majority_sign_method: Signs = "total",
    weights: Weights = None,
    seed: int = 0,
) -> Tensor:
    """DARE, then TIES: random values, rescaled, averaged where they have the sign of the majority."""
    kept = random(vectors, density, rescale, seed)
    return disjoint_mean(weighted(kept, weights), elect(kept, majority_sign_method))
