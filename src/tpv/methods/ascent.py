"""Gradient ascent on a task (Jang et al., 2023): the prompt is trained to make the right answers unlikely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.methods.prompt_tuning import WholePrompt
from tpv.models import Backbone
from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.fit import Trainee
from tpv.training.recipe import Recipe
from tpv.training.run import TrainingRow, likelihood


@register.method("ascent", order=30)
@dataclass(frozen=True)
class Ascent:
    """All values of the prompt train, so that the answers become less likely: unlearning, from a tuned prompt."""

    kind: ClassVar[str] = "prompt"
    unlearns: ClassVar[bool] = True

    def begin(self, backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe) -> Trainee:
        """What trains, from a prompt that knows the task.

        Raises:
            TpvError: a recipe that keeps the best checkpoint, which would be the prompt that has forgotten least.
        """
        if recipe.select != "last":
            raise TpvError("select of a gradient ascent", expected="'last'", got=repr(recipe.select))
        return _Ascending(Parameter(init.tensor))


class _Ascending(WholePrompt):
    """A prompt whose loss is the log-likelihood."""

    @staticmethod
    def loss(backbone: Backbone, bank: Tensor, index: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
        """Log-likelihood of each row's target, in nats."""
        return -likelihood(backbone, bank, index, rows)
