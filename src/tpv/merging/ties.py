"""TIES-Merging (Yadav et al., 2023): trim, elect signs, merge what agrees."""

from typing import Literal

import torch
from torch import Tensor

from tpv.merging.parts import Density, Weights, keep_largest, one_each
from tpv.registry import register

SignMethod = Literal["total", "frequency"]


@register.merge("ties", order=30)
def ties(
    vectors: Tensor, *, density: Density = 0.2, weights: Weights = None, majority_sign_method: SignMethod = "total"
) -> Tensor:
    """TIES: keep the largest values of each vector, then average those that agree with the majority sign.

    Args:
        vectors: [N, P, H].
        density: share of each vector's values to keep, by magnitude (the paper trims to k = 20 %).
        weights: factor of each vector, applied after the signs are elected, as in PEFT; by default 1 each.
        majority_sign_method: `total` elects the sign of the sum (the paper's way), `frequency` that of most vectors.

    Returns:
        [P, H]; 0 where no kept value has the elected sign.
    """
    return agreeing_mean(keep_largest(vectors, density), weights, majority_sign_method)


def agreeing_mean(vectors: Tensor, weights: Weights, majority_sign_method: SignMethod) -> Tensor:
    """Elect a sign for each value and average the vectors that have it (the paper's steps 2 and 3)."""
    factors = torch.tensor(one_each(len(vectors), weights), dtype=vectors.dtype)
    votes = vectors if majority_sign_method == "total" else vectors.sign()
    elected = torch.where(votes.sum(dim=0) >= 0, 1, -1)
    agrees = vectors.sign() == elected
    total = (vectors * factors[:, None, None] * agrees).sum(dim=0)
    return total / agrees.sum(dim=0).clamp(min=1.0)
