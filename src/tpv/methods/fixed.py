"""Vectors that all come from one initialization of zeros: the simplest rival of portable ones."""

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


@register.method("fixed", order=4)
@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Each vector is trained in isolation from zeros, an initialization that all of them share."""

    kind: ClassVar[str] = "vectors"
    home: ClassVar[bool] = True
    scales: tuple[float, float] = (1.0, 1.0)
    draws: int | None = None

    def fit(self, backbone: Backbone, tasks: Sequence[Task], recipe: Recipe, **options: Any) -> list[TaskPromptVector]:
        """One vector per task; see `tpv.fit_vectors` for the options, of which `init` is always zero."""
        options["init"] = "zero"
        return fit_vectors(backbone, tasks, recipe, portable=False, scales=self.scales, draws=self.draws, **options)
