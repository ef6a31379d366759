"""A projector trained on tasks that are known on both models (Su et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu, mse_loss

from tpv.errors import TpvError
from tpv.evaluation.bank import PromptReader, SharedPrompt
from tpv.models import Backbone, Tokens
from tpv.porting.anchors import TINY, Affine, Anchors
from tpv.porting.procrustes import procrustes
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.loop import train
from tpv.training.recipe import Recipe
from tpv.training.run import Run


@dataclass(frozen=True)
class Known:
    """What a projector learns from: prompts, or vectors, of the source, and what they are or do on the target.

    Attributes:
        source: [P, H_A] each.
        target: for each of them its counterpart [P, H_B], or the task that it has to do on the target.
        base: on the target, [P, H_B], what a projected vector is added to; None for prompts.
        backbone: the target.
    """

    source: Sequence[Tensor]
    target: Sequence[Tensor | Task]
    base: Tensor | None
    backbone: Backbone


class Projector(nn.Module):
    """A two-layer network for each row, added to a linear map of it."""

    def __init__(self, linear: Affine, hidden: int, size: float, other: float, vectors: bool) -> None:
        super().__init__()
        width, out = linear.matrix.shape
        self.linear, self.size, self.other, self.vectors = linear, size, other, vectors
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, out)
        nn.init.zeros_(self.outer.weight)  # begins as the linear map
        nn.init.zeros_(self.outer.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [..., H_A] on the other model, [..., H_B]."""
        base = self.linear.vector(rows) if self.vectors else self.linear.prompt(rows)
        change: Tensor = self.outer(gelu(self.inner(rows / self.size)))
        return base + self.other * change

    def prompt(self, rows: Tensor) -> Tensor:
        """Rows of a prompt, [P, H_A], on the other model, [P, H_B]."""
        with torch.no_grad():
            return self.forward(rows)

    vector = prompt


class _Projected:
    """A `PromptReader` of what the projector makes of a prompt at the moment."""

    def __init__(self, projector: Projector, rows: Tensor, base: Tensor | None) -> None:
        self._projector, self._rows, self._base = projector, rows, base

    @property
    def num_tokens(self) -> int:
        return self._rows.shape[0]

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        made = self._projector(self._rows)
        return SharedPrompt(made if self._base is None else self._base + made).read(sources)


@register.port("projector", order=40, known=True)
def projector(
    anchors: Anchors,
    known: Known,
    *,
    hidden: Annotated[int, Field(ge=1)] = 256,
    steps: Annotated[int, Field(ge=1)] = 300,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Projector:
    """A small network on top of the `procrustes` map, trained on tasks known on both models.

    It trains to bring each known prompt close to its counterpart (the paper's distance minimizing), or, where a task is
    known in place of a counterpart, to make the projected prompt do that task on the target (its task tuning).

    Args:
        known: see `tpv.port`.
        hidden: width of the network's inner layer.
        steps: of AdamW; all pairs a step, or 32 rows of the tasks.
        lr: peak learning rate.
        seed: of the network's initialization and of the order of rows.
    """
    linear = procrustes(anchors)
    rows = torch.cat(list(known.source))
    mapped = linear.vector(rows) if known.base is not None else linear.prompt(rows)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Projector(linear, hidden, _rms(rows), _rms(mapped), known.base is not None)
    tasks = [target for target in known.target if isinstance(target, Task)]
    if not tasks:
        counterparts = [target for target in known.target if isinstance(target, Tensor)]
        _closer(made, rows, torch.cat(counterparts), steps, lr)
    elif len(tasks) == len(known.target):
        _useful(made, known, tasks, Recipe(steps=steps, lr=lr, select="last", seed=seed))
    else:
        raise TpvError("what is known on the target", expected="counterparts, or tasks", got="some of either")
    return made.requires_grad_(False)


def _rms(rows: Tensor) -> float:
    return max(TINY, float(rows.double().square().mean().sqrt()))


def _closer(made: Projector, rows: Tensor, counterparts: Tensor, steps: int, lr: float) -> None:
    """Distance minimizing: least squared error on all rows of all pairs."""
    optimizer = torch.optim.AdamW(made.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    scale = _rms(counterparts)
    for _ in range(steps):
        mse_loss(made(rows) / scale, counterparts / scale).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()


def _useful(made: Projector, known: Known, tasks: Sequence[Task], recipe: Recipe) -> None:
    """Task tuning: the likelihood of the tasks' answers under the projected prompts."""
    readers: list[PromptReader] = [_Projected(made, rows, known.base) for rows in known.source]
    parts = list(zip(tasks, readers, strict=True))
    run = Run(parts, list(made.parameters()), known.backbone, recipe, recipe.seed, validation=[])
    train(known.backbone, [run], recipe, callback=lambda _: None)
