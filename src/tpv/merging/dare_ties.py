"""DARE before the sign election of TIES (Yu et al., 2024)."""

from torch import Tensor

from tpv.merging.dare import keep_random
from tpv.merging.parts import Density, Seed, Weights
from tpv.merging.ties import SignMethod, agreeing_mean
from tpv.registry import register


@register.merge("dare_ties", order=50)
def dare_ties(
    vectors: Tensor,
    *,
    density: Density = 0.5,
    weights: Weights = None,
    majority_sign_method: SignMethod = "total",
    rescale: bool = True,
    seed: Seed = 0,
) -> Tensor:
    """DARE-TIES: keep values at random and rescale them, then average those that agree with the majority sign.

    Args:
        vectors: [N, P, H].
        density: probability that a value is kept.
        weights: factor of each vector, applied after the signs are elected, as in PEFT; by default 1 each.
        majority_sign_method: see `ties`.
        rescale: divide what is kept by `density`.
        seed: seed of the random choice.

    Returns:
        [P, H]; 0 where no kept value has the elected sign.
    """
    return agreeing_mean(keep_random(vectors, density, rescale, seed), weights, majority_sign_method)
