"""A map between models in one file, outside of tpv."""

import torch

import tpv
from tpv.porting.anchors import Affine, Anchors


@tpv.register.port("least_squares")
def least_squares(anchors: Anchors, *, shrink: float = 1.0) -> Affine:
    """Ordinary least squares on the anchors, times `shrink`."""
    x, y = anchors.standard()
    return anchors.affine(shrink * torch.linalg.lstsq(x, y).solution, "fit")
