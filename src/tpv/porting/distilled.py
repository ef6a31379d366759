"""Training on what another model says to the rows (Hinton et al., 2015), not on their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter

from tpv.evaluation.bank import PromptReader, SharedPrompt
from tpv.models import Backbone
from tpv.outputs.label import label_tokens
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Example, Task
from tpv.training.recipe import Recipe
from tpv.training.run import Loss, TrainingRow

LEAST = 1e-3  # probability below which a label word costs more than it teaches
Answers = Mapping[Example, Sequence[float]]  # probability of each label word, [C]


@dataclass(frozen=True)
class Distilled:
    """A training method: prompt tuning towards the label distributions of a teacher.

    Attributes:
        answers: what the teacher says to each training row, for each start (by its digest) and task (by its
            fingerprint).
    """

    kind: ClassVar[str] = "prompt"
    answers: Mapping[tuple[str, str], Answers] = field(repr=False)

    def begin(self, backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe) -> _Student:
        """What trains, from this initialization."""
        return _Student(init.tensor, distillation(task, self.answers[init.digest, task.fingerprint]))


class _Student:
    """A prompt that trains as a whole, with a loss of its own."""

    def __init__(self, tensor: Tensor, loss: Loss) -> None:
        self._prompt, self.loss = Parameter(tensor), loss
        self.parameters: Sequence[Parameter] = [self._prompt]

    def reader(self) -> PromptReader:
        return SharedPrompt(self._prompt)

    def prompt(self) -> Tensor:
        return self._prompt


def distillation(task: Task, answers: Answers) -> Loss:
    """The cross-entropy of the model's label words under the teacher's probabilities, in nats.

    The words are scored as whole sequences among everything that the model can say, so that it learns to say label
    words, too. Words with a probability below `LEAST` are left out.
    """

    def loss(backbone: Backbone, bank: Tensor, index: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
        words = label_tokens(backbone, task)
        picked = [
            (number, label, share)
            for number, row in enumerate(rows)
            for label, share in enumerate(answers[row.example])
            if share >= LEAST
        ]
        at = torch.tensor([number for number, _, _ in picked])
        costs = backbone.nll(
            bank,
            index[at.to(index.device)],
            [rows[number].source for number, _, _ in picked],
            [words[label] for _, label, _ in picked],
        )
        shares = torch.tensor([share for _, _, share in picked], device=costs.device)
        return torch.zeros(len(rows), device=costs.device).index_add(0, at.to(costs.device), shares * costs)

    return loss
