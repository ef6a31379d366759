"""Composable vectors: portable, and trained beside the other tasks' vectors, so that sums work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tpv.methods.vectors import FittedVectors
from tpv.registry import register


@register.method("composable", order=3)
@dataclass(frozen=True, kw_only=True)
class Composable(FittedVectors):
    """Portable, and each other vector is added by chance, so that the vectors work in sums."""

    options: ClassVar[Mapping[str, Any]] = {"composable": True}
