"""Portable vectors: a fresh initialization at every step, so that the vector works on any."""

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


@register.method("portable", order=2)
@dataclass(frozen=True, kw_only=True)
class Portable:
    """Each task's vector trains under a fresh initialization at every step, so that it works on any."""

    kind: ClassVar[str] = "vectors"
    home: ClassVar[bool] = False
    scales: tuple[float, float] = (1.0, 1.0)
    draws: int | None = None

    def fit(self, backbone: Backbone, tasks: Sequence[Task], recipe: Recipe, **options: Any) -> list[TaskPromptVector]:
        """One vector per task; see `tpv.fit_vectors` for the options."""
        return fit_vectors(backbone, tasks, recipe, scales=self.scales, draws=self.draws, **options)
