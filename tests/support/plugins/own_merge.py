"""A merge in one file, outside of tpv."""

from torch import Tensor

import tpv


@tpv.register.merge("median")
def median(vectors: Tensor, *, shrink: float = 1.0) -> Tensor:
    """The value in the middle, at every place, times `shrink`."""
    return shrink * vectors.median(dim=0).values
