"""Cosines between matrices (figures 2, 3, 6, 7 of the paper)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tpv.errors import TpvError

SLICE = 4096  # values of each item in one product


def cosines(tensors: Sequence[Tensor]) -> Tensor:
    """Cosine of every pair of N tensors of one shape, fp32 [N, N], symmetric with a diagonal of exactly 1.

    Each tensor counts as one flattened vector. The matrix product runs over slices of the values, so that it needs
    only a few megabytes beside the tensors themselves.

    Raises:
        TpvError: a tensor is all zero.
    """
    norms = torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors])
    if (norms == 0).any():
        zero = int((norms == 0).nonzero()[0, 0])
        raise TpvError(
            "the cosine of a zero vector is not defined", expected="vectors that are not zero", got=f"item {zero}"
        )
    flat = [tensor.flatten() for tensor in tensors]
    products = torch.zeros(len(flat), len(flat))
    inverse = (1.0 / norms).float()[:, None]
    for start in range(0, flat[0].numel(), SLICE):
        part = torch.stack([values[start : start + SLICE] for values in flat]) * inverse
        products.addmm_(part, part.T)
    products = ((products + products.T) / 2).clamp_(-1.0, 1.0)
    products.fill_diagonal_(1.0)
    return products


def token_cosines(prompt: Tensor, others: Tensor) -> Tensor:
    """Cosine [N] of a prompt's average token with that of each of N others: SPoT's similarity of tasks.

    Args:
        prompt: [P, H].
        others: [N, P, H]; their P may differ from the prompt's.

    Source: Vu et al. (2022), section 3.1, "cosine similarity of average tokens".
    """
    return torch.nn.functional.cosine_similarity(prompt.mean(0)[None], others.mean(1), dim=1)
