"""The mean of vectors."""

from torch import Tensor

from tpv.merging.parts import summed, weighted_sum
from tpv.registry import register


@register.merge("mean", order=20)
@weighted_sum(lambda count: [1.0 / count] * count)
def mean(vectors: Tensor) -> Tensor:
    """Mean, (1/N) sum_k tau_k.

    Args:
        vectors: [N, P, H].

    Returns:
        [P, H].
    """
    return summed(vectors, [1.0] * len(vectors)) / len(vectors)
