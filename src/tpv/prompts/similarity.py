"""Cosines between prompts, or between vectors (figures 2, 3, 6, 7 of the paper)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.matrix import PromptMatrix, matrices

SLICE = 4096  # values of each item in one product


def cosine_matrix(items: Sequence[PromptMatrix]) -> Tensor:
    """Cosine of every pair, fp32 [N, N], symmetric with a diagonal of exactly 1.

    Each item is one flattened vector of P·H values. The matrix product runs over slices of the values, so
    that beside the items themselves only a few megabytes are needed.

    Raises:
        TpvError: no items, or one that is all zero. IncompatibleError: another model or shape.
    """
    flat = [matrix.flatten() for matrix in matrices(items)]
    norms = torch.tensor([item.norm() for item in items], dtype=torch.float64)
    if (norms == 0).any():
        zero = int((norms == 0).nonzero()[0, 0])
        raise TpvError("cosine of a zero vector is not defined", got=f"item {zero} is all zero")
    cosines = torch.zeros(len(flat), len(flat))
    inverse = (1.0 / norms).float()[:, None]
    for start in range(0, flat[0].numel(), SLICE):
        part = torch.stack([values[start : start + SLICE] for values in flat]) * inverse
        cosines.addmm_(part, part.T)
    cosines = ((cosines + cosines.T) / 2).clamp_(-1.0, 1.0)
    cosines.fill_diagonal_(1.0)
    return cosines
