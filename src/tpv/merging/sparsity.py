"""Fewer values: what TIES, DARE and breadcrumbs keep of a vector."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

Density = Annotated[float, Field(gt=0, le=1, description="share of the values that is kept")]
Weights = tuple[float, ...] | None
Signs = Literal["total", "frequency"]


def largest(vectors: Tensor, density: float) -> Tensor:
    """Each of the vectors [N, P, H] with its largest values only, a share `density` of them; the others are 0."""
    flat = vectors.flatten(1)
    keep = int(density * flat.shape[1])
    chosen = flat.abs().topk(keep, dim=1).indices
    return (flat * torch.zeros_like(flat).scatter_(1, chosen, 1.0)).view_as(vectors)


def random(vectors: Tensor, density: float, rescale: bool, seed: int) -> Tensor:
    """Each of the vectors [N, P, H] with a random share `density` of its values; the others are 0.

    Args:
        rescale: divide by the density, which keeps the expected values.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = vectors * torch.bernoulli(torch.full_like(vectors, density), generator=generator)
    return kept / density if rescale else kept


def elect(vectors: Tensor, signs: Signs) -> Tensor:
    """Which values of the vectors [N, P, H] have the sign of the majority, bool.

    Args:
        signs: whose majority: of the summed values (`total`), or of the vectors (`frequency`).
    """
    total = (vectors if signs == "total" else vectors.sign()).sum(dim=0)
    return vectors.sign() == torch.where(total >= 0, 1.0, -1.0)


def disjoint_mean(vectors: Tensor, agree: Tensor) -> Tensor:
    """The sum over vectors of the values that agree, divided by how many do (by 1 where none does)."""
    return (vectors * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
