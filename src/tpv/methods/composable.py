"""Composable vectors: portable, and trained beside the other tasks' vectors, so that sums work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tpv.methods.vectors import fit_vectors
from tpv.models import Backbone
from tpv.prompts.algebra import TaskPromptVector
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.recipe import Recipe


@register.method("composable", order=3)
@dataclass(frozen=True, kw_only=True)
class Composable:
    """Portable, and each other vector is added by chance, so that the vectors work in sums."""

    kind: ClassVar[str] = "vectors"
    home: ClassVar[bool] = False
    scales: tuple[float, float] = (1.0, 1.0)
    draws: int | None = None

    def fit(self, backbone: Backbone, tasks: Sequence[Task], recipe: Recipe, **options: Any) -> list[TaskPromptVector]:
        """One vector per task; see `tpv.fit_vectors` for the options."""
        return fit_vectors(backbone, tasks, recipe, composable=True, scales=self.scales, draws=self.draws, **options)
