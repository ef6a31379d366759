"""Model breadcrumbs (Davari and Belilovsky, 2024): drop the largest and the smallest values, then add."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from tpv.merging.parts import Density, Weights, one_each, summed
from tpv.registry import register


@register.merge("breadcrumbs", order=70)
def breadcrumbs(
    vectors: Tensor,
    *,
    density: Density = 0.9,
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.01,
    weights: Weights = None,
) -> Tensor:
    """Breadcrumbs: drop the largest and the smallest values of each vector, and add the vectors with weights.

    Args:
        vectors: [N, P, H].
        density: share of each vector's values to keep (the names of the parameters and their defaults are mergekit's).
        gamma: share of the values to drop because they are the largest, less where `density` leaves less to drop. The
            others to drop are the smallest.
        weights: factor of each vector; by default 1 each.

    Returns:
        [P, H].
    """
    flat = vectors.flatten(1)
    size = flat.shape[1]
    kept = max(1, int(density * size))
    top = min(int(gamma * size), size - kept)
    bottom = size - kept - top
    mask = torch.zeros_like(flat)
    mask.scatter_(1, flat.abs().argsort(dim=1, stable=True)[:, bottom : bottom + kept], 1.0)
    return summed((flat * mask).view_as(vectors), one_each(len(vectors), weights))
