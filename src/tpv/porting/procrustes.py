"""Orthogonal Procrustes: the rotation that brings one embedding space closest to the other (Schönemann, 1966)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes

from tpv.porting.anchors import Affine, Anchors, Scale
from tpv.registry import register


@register.port("procrustes", order=10)
def procrustes(anchors: Anchors, *, scale: Scale = "match") -> Affine:
    """The rotation of the source's embeddings that is closest to the target's.

    Of unlike widths, the narrower side gets columns of zeros: the map to a wider model keeps all distances, that to a
    narrower one is a projection.

    Args:
        scale: `match` or `fit`, see `Anchors.affine`.
    """
    x, y = (side.numpy() for side in anchors.standard())
    width = max(x.shape[1], y.shape[1])
    padded = (np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in (x, y))
    rotation, _ = orthogonal_procrustes(*padded)
    return anchors.affine(torch.from_numpy(rotation[: x.shape[1], : y.shape[1]]), scale)
