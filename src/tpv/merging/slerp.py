"""Spherical interpolation of two vectors."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from tpv.errors import TpvError
from tpv.registry import register

PARALLEL = 0.9995  # of the cosine: from here on the arc is a line


@register.merge("slerp", order=6)
def slerp(vectors: Tensor, *, t: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Tensor:
    """The point at `t` of the arc from the first of two vectors to the second.

    Raises:
        TpvError: another number of vectors than two, or one that is all zero.
    """
    if len(vectors) != 2:
        raise TpvError("vectors to merge by slerp", expected="2", got=len(vectors))
    one, two = vectors.double().unbind()
    lengths = one.norm(), two.norm()
    if not all(lengths):
        raise TpvError("vectors to merge by slerp", expected="two that are not zero", got="one that is all zero")
    cosine = float((one * two).sum() / (lengths[0] * lengths[1]))
    if abs(cosine) > PARALLEL:
        return torch.lerp(one, two, t).to(vectors.dtype)
    angle = math.acos(cosine)
    factors = torch.tensor([math.sin((1 - t) * angle), math.sin(t * angle)]) / math.sin(angle)
    return (factors[0] * one + factors[1] * two).to(vectors.dtype)
