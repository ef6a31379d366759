"""TIES (Yadav et al., 2023): trim, elect signs, merge what agrees."""

from __future__ import annotations

from torch import Tensor

from tpv.merging import weighted
from tpv.merging.sparsity import Density, Signs, Weights, disjoint_mean, elect, largest
from tpv.registry import register


@register.merge("ties", order=3)
def ties(vectors: Tensor, *, density: Density = 0.2, majority_sign_method: Signs = "total", weights: Weights = None) -> Tensor:
    """TIES: the largest values of each vector, averaged where they have the sign of the majority."""
    kept = largest(vectors, density)
    return disjoint_mean(weighted(kept, weights), elect(kept, majority_sign_method))
