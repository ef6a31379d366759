"""Model breadcrumbs (Davari and Belilovsky, 2024): neither the largest values nor the small ones."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from tpv.merging import weighted
from tpv.merging.sparsity import Density, Weights
from tpv.registry import register


@register.merge("breadcrumbs", order=7)
def breadcrumbs(
    vectors: Tensor,
    *,
    density: Density = 0.9,
    gamma: Annotated[float, Field(ge=0, lt=1, description="share of the values, the largest, that is dropped")] = 0.01,
    weights: Weights = None,
) -> Tensor:
    """The sum of each vector's values of middling size: the largest `gamma` dropped, then the next `density` kept."""
    flat = vectors.flatten(1)
    count = flat.shape[1]
    top = int(gamma * count)
    keep = min(int(density * count), count - top)
    chosen = flat.abs().argsort(dim=1, descending=True)[:, top : top + keep]
    kept = (flat * torch.zeros_like(flat).scatter_(1, chosen, 1.0)).view_as(vectors)
    return weighted(kept, weights).sum(dim=0)
