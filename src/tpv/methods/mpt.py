"""Multitask prompt tuning (Wang et al., 2023): a prompt that tasks share, times a matrix of rank one of each task.

The prompt of task k is P* ∘ (u_k v_kᵀ) (eq. 1). *Source training* learns P* and all u_k, v_k together from the rows of
the sources and from their own tuned prompts, the teachers. A row of task k costs

    NLL + weight · (KL(teacher || student) + MSE of the hidden states)        (eq. 2 to 4)

at the tokens of its target. *Target training* starts from P* and the means of the u_k and v_k, and trains all three on
the target's rows by likelihood alone.

Where the paper leaves a choice: u and v start at 1, so that every task starts at P*; hidden states are those that the
output layer reads; rows of all sources are shuffled together, where the paper draws 2 to K tasks for each batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.evaluation.bank import PromptReader
from tpv.methods.sources import Prepared, SourceMethod, Target, TrainedSource
from tpv.models import Backbone, Tokens
from tpv.progress import Callback
from tpv.prompts.peft_multitask import Decomposition
from tpv.registry import register
from tpv.training.fit import Current, Trainee
from tpv.training.loop import train
from tpv.training.recipe import Recipe
from tpv.training.run import Run, TrainingRow

Weight = Annotated[float, Field(ge=0, le=1e6)]


@register.method("mpt", order=11)
@dataclass(frozen=True, kw_only=True)
class MultitaskPromptTuning(SourceMethod):
    """MPT: a shared prompt and rank-one task matrices, distilled from the sources' prompts and then tuned.

    Attributes:
        weight: weight of the two distillation losses; lambda in the paper.
        speed: learning rate of the task matrices, as a multiple of the shared prompt's. The paper has 0.4 / 0.3.
    """

    prepares: ClassVar[bool] = True
    zero_shot: ClassVar[bool] = True
    weight: Weight = 0.9
    speed: Annotated[float, Field(gt=0, le=1e6)] = 4 / 3

    def prepare(
        self,
        backbone: Backbone,
        sources: Sequence[TrainedSource],
        recipe: Recipe,
        *,
        seed: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Tensor]:
        """The shared prompt, from the first source's initialization, and all task matrices, by PEFT's names."""
        if not sources:
            raise TpvError("sources of MPT", expected="at least one", got="none")
        shared = Parameter(sources[0].init.tensor)
        col, row = torch.ones(len(shared), 1), torch.ones(1, shared.shape[1])
        tasks = [_Product(shared, col, row, self.speed) for _ in sources]
        readers = [_Taught(one, source.prompt.tensor) for one, source in zip(tasks, sources, strict=True)]
        run = Run(
            [(source.task, reader) for source, reader in zip(sources, readers, strict=True)],
            [shared, *(part for one in tasks for part in (one.col, one.row))],
            backbone,
            recipe,
            recipe.seed,
            about=repr(self),
            loss=Distillation(self.weight),
        )
        train(backbone, [run], recipe, callback=callback, checkpoint=checkpoint)
        run.restore()
        cols, rows = (torch.stack(each) for each in zip(*(one.matrices() for one in tasks), strict=True))
        return Decomposition(shared, cols, rows).state()

    def begin(
        self, backbone: Backbone, target: Target, sources: Sequence[TrainedSource], prepared: Prepared, recipe: Recipe
    ) -> Trainee:
        """The shared prompt and a matrix, the mean of the sources'."""
        mean = Decomposition.from_state(prepared).average()
        return _Product(Parameter(mean.shared.clone()), mean.cols[0], mean.rows[0], self.speed)


class _Product:
    """A prompt P* ∘ (u vᵀ): what trains of it.

    u and v are kept divided by `speed`, so that a step of AdamW, whose length does not depend on the scale of a
    gradient, moves them `speed` times as far.
    """

    def __init__(self, shared: Parameter, col: Tensor, row: Tensor, speed: float) -> None:
        self.shared, self.speed = shared, speed
        self.col, self.row = Parameter(col / speed), Parameter(row / speed)
        self.parameters: Sequence[Parameter] = [self.shared, self.col, self.row]

    def matrices(self) -> tuple[Tensor, Tensor]:
        """u [P, 1] and v [1, H]."""
        return self.speed * self.col.detach(), self.speed * self.row.detach()

    def prompt(self) -> Tensor:
        return self.shared * (self.speed * self.col @ (self.speed * self.row))

    def reader(self) -> PromptReader:
        return Current(self, len(self.shared))


class _Taught(Current):
    """A `PromptReader` of a task's current prompt that knows the task's teacher, [P, H]."""

    def __init__(self, product: _Product, teacher: Tensor) -> None:
        super().__init__(product, len(teacher))
        self.teacher = teacher


@dataclass(frozen=True)
class Distillation:
    """The loss of source training: likelihood, and likeness to what the model says after a teacher's prompt."""

    weight: float

    def __call__(self, backbone: Backbone, bank: Tensor, index: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
        """Of each row, [N], summed over its target's tokens."""
        sources: list[Tokens] = [row.source for row in rows]
        targets: list[Tokens] = [row.target for row in rows]
        student = backbone.target_states(bank, index, sources, targets)
        said = student.logits.log_softmax(dim=-1)
        gold = torch.tensor([token for target in targets for token in target], device=said.device)
        cost = -said.gather(1, gold[:, None])[:, 0]
        if self.weight:
            prompts, place = _teachers(rows)
            with torch.no_grad():
                teacher = backbone.target_states(prompts, place, sources, targets)
            wanted = teacher.logits.log_softmax(dim=-1)
            cost = cost + self.weight * (wanted.exp() * (wanted - said)).sum(dim=-1)
            cost = cost + self.weight * (student.hidden - teacher.hidden).square().mean(dim=-1)
        return torch.zeros(len(rows), device=cost.device).index_add(0, student.row, cost)


def _teachers(rows: Sequence[TrainingRow]) -> tuple[Tensor, Tensor]:
    """The bank of the rows' teachers and the index into it."""
    distinct: dict[int, Tensor] = {}
    for row in rows:
        if not isinstance(row.reader, _Taught):
            raise TpvError("distillation", expected="rows with a teacher", got=type(row.reader).__name__)
        distinct.setdefault(id(row.reader), row.reader.teacher)
    place = {key: number for number, key in enumerate(distinct)}
    return torch.stack(list(distinct.values())), torch.tensor([place[id(row.reader)] for row in rows])
