"""DARE (Yu et al., 2024): drop values at random and rescale the rest, then add."""

import torch
from torch import Tensor

from tpv.merging.parts import Density, Seed, Weights, one_each, summed
from tpv.registry import register


@register.merge("dare", order=40)
def dare(
    vectors: Tensor, *, density: Density = 0.5, weights: Weights = None, rescale: bool = True, seed: Seed = 0
) -> Tensor:
    """DARE: keep values at random, rescale them, and add the vectors with weights.

    Args:
        vectors: [N, P, H].
        density: probability that a value is kept (1 - p in the paper).
        weights: factor of each vector; by default 1 each.
        rescale: divide what is kept by `density`, so that the expected value of the sum stays.
        seed: seed of the random choice.

    Returns:
        [P, H].
    """
    return summed(keep_random(vectors, density, rescale, seed), one_each(len(vectors), weights))


def keep_random(vectors: Tensor, density: float, rescale: bool, seed: int) -> Tensor:
    """Set each value to zero with probability 1 - density: [N, P, H] -> [N, P, H]."""
    if density == 1:
        return vectors
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.bernoulli(torch.full_like(vector, density), generator=generator) for vector in vectors]
    kept = vectors * torch.stack(masks)
    return kept / density if rescale else kept
