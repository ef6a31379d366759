"""Cosines between prompts, or between vectors (figures 2, 3, 6, 7 of the paper)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.vectors import PromptMatrix, stack


def cosine_matrix(items: Sequence[PromptMatrix]) -> Tensor:
    """Cosine of every pair, fp32 [N, N], symmetric with a diagonal of exactly 1.

    Each item is one flattened vector of P·H values. Items become unit vectors once, then one matrix
    product does the rest: 1,000 vectors of [100, 768] take about a second on two cores.

    Raises:
        TpvError: no items, or one that is all zero. IncompatibleError: another model or shape.
    """
    flat = stack(items).flatten(1)
    norms = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    if (norms == 0).any():
        zero = int((norms[:, 0] == 0).nonzero()[0, 0])
        raise TpvError("cosine of a zero vector is not defined", got=f"item {zero} is all zero")
    flat /= norms
    cosines = (flat @ flat.T).clamp_(-1.0, 1.0)
    cosines = (cosines + cosines.T) / 2
    cosines.fill_diagonal_(1.0)
    return cosines
