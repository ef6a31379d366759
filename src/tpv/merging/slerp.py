"""Spherical linear interpolation (Shoemake, 1985) between two vectors."""

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from tpv.errors import TpvError
from tpv.registry import register

PARALLEL = 1e-6  # sine of the angle below which a straight line and an arc are the same in fp32


@register.merge("slerp", order=60)
def slerp(vectors: Tensor, *, t: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Tensor:
    """Spherical interpolation between two vectors, along the arc from the first to the second.

    (sin((1 - t) θ) tau_0 + sin(t θ) tau_1) / sin θ, with θ the angle between the flattened vectors.

    Args:
        vectors: [2, P, H].
        t: 0 gives the first vector, 1 the second.

    Returns:
        [P, H].

    Raises:
        TpvError: another number of vectors than two, a zero vector, or two that point in opposite directions.
    """
    if len(vectors) != 2:
        raise TpvError("vectors of a slerp", expected="exactly 2", got=len(vectors))
    first, second = vectors[0].double(), vectors[1].double()
    if not (first.any() and second.any()):
        raise TpvError("vectors of a slerp", expected="two that are not zero: a zero vector has no direction")
    cosine = float((first * second).sum() / first.norm() / second.norm())
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < PARALLEL:
        if cosine < 0:
            raise TpvError(
                "vectors of a slerp", expected="an angle below 180 degrees", got="opposite directions", fix="use linear"
            )
        return ((1 - t) * first + t * second).to(vectors.dtype)
    arc = math.sin(angle)
    return (math.sin((1 - t) * angle) / arc * first + math.sin(t * angle) / arc * second).to(vectors.dtype)
