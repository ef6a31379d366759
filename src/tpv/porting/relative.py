"""Relative representations: coordinates by similarity to anchors (Moschella et al., 2023; Wu et al., 2024)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch.nn.functional import normalize

from tpv.porting.anchors import Affine, Anchors, Scale
from tpv.registry import register


@register.port("relative", order=30)
def relative(anchors: Anchors, *, rcond: Annotated[float, Field(gt=0, lt=1)] = 1e-6, scale: Scale = "match") -> Affine:
    """The target's row whose similarities to the anchors are most like those of the source's row.

    Wu et al. (ICLR 2024) describe a row by its cosines to anchors and search the target's space, by gradient, for the
    row whose cosines are most like them. With unit anchors A and B, [N, H], the best direction for x has a closed form:
    x Aᵀ (Bᵀ)⁺, a linear map, which is what tpv computes. Cosines say nothing of a row's length; the map keeps what it
    is relative to the anchors.

    Args:
        rcond: singular values of the target's anchors below this share of the largest count as zero.
        scale: `match` or `fit`, see `Anchors.affine`.
    """
    a, b = (normalize(side, dim=1) for side in anchors.standard(center=False))
    return anchors.affine(a.T @ torch.linalg.pinv(b.T, rtol=rcond), scale, center=False)
