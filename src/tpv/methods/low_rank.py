"""Low-rank prompt tuning (decomposed prompt tuning, Xiao et al., 2023): what is added to the prompt has a low rank.

The prompt is init + A B with A [P, R] and B [R, H]. A begins at 0, so that the prompt begins at the initialization; in
the paper there is no initialization beside A B. DePT (Shi and Lipani, 2024) adds a product of this kind to the
embeddings of the *text*, which no soft prompt can stand for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.methods.reparameterized import Reparameterized
from tpv.models import Backbone
from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.fit import Trainee
from tpv.training.recipe import Recipe


@register.method("low_rank", order=21)
@dataclass(frozen=True, kw_only=True)
class LowRank:
    """A low-rank matrix trains and is added to the initialization.

    Attributes:
        rank: R, at most the prompt's tokens and the model's width.
        seed: seed of the initial B, whose values have variance 1 / R.
    """

    kind: ClassVar[str] = "prompt"
    rank: Annotated[int, Field(ge=1)] = 4
    seed: Annotated[int, Field(ge=0)] = 0

    def check_fit(self, num_tokens: int, sources: int) -> None:
        """Refuse a rank that no prompt of so many tokens has."""
        if self.rank > num_tokens:
            raise TpvError("rank of low_rank", expected=f"at most {num_tokens}", got=self.rank)

    def begin(self, backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe) -> Trainee:
        """A and B train."""
        start = init.tensor
        self.check_fit(min(start.shape), 0)
        a = Parameter(torch.zeros(len(start), self.rank))
        b = Parameter(random_matrix(self.rank, start.shape[1], self.seed))
        return Reparameterized(len(start), [a, b], lambda: start + a @ b)


def random_matrix(rank: int, width: int, seed: int) -> Tensor:
    """Gaussian values of variance 1 / R, [R, H]: R values of size 1 make rows of values of size 1."""
    return torch.randn(rank, width, generator=torch.Generator().manual_seed(seed)) * math.sqrt(1 / rank)
