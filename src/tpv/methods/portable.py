"""Portable vectors: a fresh initialization at every step, so that the vector works on any."""

from __future__ import annotations

from dataclasses import dataclass

from tpv.methods.vectors import FittedVectors
from tpv.registry import register


@register.method("portable", order=2)
@dataclass(frozen=True, kw_only=True)
class Portable(FittedVectors):
    """Each task's vector trains under a fresh initialization at every step, so that it works on any."""
