"""Prompt tuning (Lester et al., 2021; eq. 1): every value of the prompt trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import Parameter

from tpv.evaluation.bank import PromptReader, SharedPrompt
from tpv.models import Backbone
from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.recipe import Recipe


@register.method("prompt_tuning", order=1)
@dataclass(frozen=True)
class PromptTuning:
    """All values of the prompt train, from the initialization."""

    kind: ClassVar[str] = "prompt"

    def begin(self, backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe) -> WholePrompt:
        """What trains, from this initialization."""
        return WholePrompt(Parameter(init.tensor))


class WholePrompt:
    """A prompt that is its own only parameter."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameters: Sequence[Parameter] = [parameter]

    def reader(self) -> PromptReader:
        return SharedPrompt(self.parameters[0])

    def prompt(self) -> Tensor:
        return self.parameters[0]
