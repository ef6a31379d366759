"""The weighted sum of vectors: task arithmetic (Ilharco et al., 2023), the paper's equations 4 and 7."""

from torch import Tensor

from tpv.merging.parts import Weights, one_each, summed, weighted_sum
from tpv.registry import register


@register.merge("linear", order=10)
@weighted_sum(lambda count, *, weights: one_each(count, weights))
def linear(vectors: Tensor, *, weights: Weights = None) -> Tensor:
    """Weighted sum, sum_k w_k · tau_k.

    Args:
        vectors: [N, P, H].
        weights: w, one for each vector; by default 1 each, the plain sum of the paper.

    Returns:
        [P, H].
    """
    return summed(vectors, one_each(len(vectors), weights))
