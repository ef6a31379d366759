"""Vectors that all come from one initialization of zeros: the simplest rival of portable ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tpv.methods.vectors import FittedVectors
from tpv.registry import register


@register.method("fixed", order=4)
@dataclass(frozen=True, kw_only=True)
class Fixed(FittedVectors):
    """Each vector is trained in isolation from zeros, an initialization that all of them share."""

    home: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Any]] = {"portable": False, "init": "zero"}
