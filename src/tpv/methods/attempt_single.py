"""ATTEMPT (Asai et al., 2022) for one target: an attention of its own, shared with no other target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tpv.methods.attempt import Attempt, fit_attempt
from tpv.models import Backbone
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.recipe import Recipe


@register.method("attempt_single", order=13)
@dataclass(frozen=True, kw_only=True)
class SingleAttempt:
    """ATTEMPT with one target: its prompt and an attention over frozen source prompts.

    Attributes:
        temperature: temperature of the softmax; by default e times the model's width.
    """

    kind: ClassVar[str] = "mixture"
    single_target: ClassVar[bool] = True
    temperature: float | None = None

    def fit(
        self,
        backbone: Backbone,
        task: Task,
        sources: Sequence[SoftPrompt],
        recipe: Recipe | None = None,
        *,
        seed: int = 0,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
    ) -> Attempt:
        """Train on one target.

        Args:
            sources: tuned prompts of the source tasks.
            seed: seed of the attention's initial weights.
            callback, checkpoint: see `tpv.fit`.

        Returns:
            The model; `reader(0)` gives each row its prompt.

        Raises:
            TpvError: no sources, prompts of another model or shape; what `tpv.fit` raises.
        """
        recipe = recipe or Recipe()
        model = Attempt(backbone, sources, [task.name], seed=seed, temperature=self.temperature)
        fit_attempt(backbone, [[task]], [model], recipe, seeds=[recipe.seed], callback=callback, checkpoint=checkpoint)
        return model
