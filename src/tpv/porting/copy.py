"""The values as they are: what a map has to beat."""

from __future__ import annotations

import torch

from tpv.porting.anchors import Affine, Anchors
from tpv.registry import register


@register.port("copy", order=50, tokens=False)
def copy(anchors: Anchors, *, rescale: bool = False) -> Affine:
    """No map: the same values, cut or filled up with zeros where the widths differ.

    Args:
        anchors: all embeddings of both models; only their size counts.
        rescale: multiply by the ratio of the root mean squares of the models' embeddings.
    """
    width, other = anchors.source.shape[1], anchors.target.shape[1]
    size, target = (side.double().square().mean().sqrt() for side in (anchors.source, anchors.target))
    factor = float(target / size) if rescale else 1.0
    return Affine(factor * torch.eye(width, other), torch.zeros(width), torch.zeros(other))
