"""Dynamic task vector grouping (DTVG; Zhang et al., 2025): which source vectors join is decided anew at every step.

The prompt of the target is

    init + a_t ∘ tau_t + sum over s in G of a_s ∘ tau_s

tau_t [P, H] is the target's own vector, tuned first by itself, and trains on; the sources' tau_s are frozen; a_t and
all a_s [P] are factors of each token, which begin at 1 and train. G is grouped from the scaled vectors as they are now:

- *Target similarity*: the similarity of two vectors is the dot product of their mean tokens divided by H. Sources whose
  similarity with the target is below 0 stay out; the others are ranked by it.
- *Knowledge consistency*: of a group, the mean similarity of its pairs, and 0 for a single source. G is the beginning
  of the ranking that has the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.evaluation.bank import PromptReader
from tpv.methods.sources import Prepared, SourceMethod, Target, TrainedSource
from tpv.models import Backbone
from tpv.registry import register
from tpv.training.fit import Current, Trainee
from tpv.training.recipe import Recipe


@register.method("dtvg", order=12)
@dataclass(frozen=True, kw_only=True)
class DynamicGrouping(SourceMethod):
    """DTVG: at every step, picks the source vectors that suit the target and each other, and adds them to its own.

    Attributes:
        speed: learning rate of the factors, as a multiple of the vector's.
    """

    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0

    def first_recipe(self, recipe: Recipe) -> Recipe | None:
        """The target's own vector is tuned as it is later, beside the others."""
        return recipe

    def begin(
        self, backbone: Backbone, target: Target, sources: Sequence[TrainedSource], prepared: Prepared, recipe: Recipe
    ) -> Trainee:
        """The target's vector and the factors of all vectors train."""
        if target.own is None:
            raise TpvError("DTVG", expected="the target's own prompt, tuned", got="none")
        vectors = torch.stack([source.vector.tensor for source in sources])
        return Grouped(target.init.tensor, (target.own - target.init).tensor, vectors, self.speed)


class Grouped:
    """What DTVG trains of one target.

    Args:
        init: [P, H].
        own: the target's vector, [P, H].
        sources: vectors [S, P, H].
        speed: see `DynamicGrouping`; factors are kept divided by it.
    """

    def __init__(self, init: Tensor, own: Tensor, sources: Tensor, speed: float) -> None:
        self.init, self.sources, self.speed = init, sources, speed
        self.own = Parameter(own.clone())
        self.own_factor = Parameter(torch.ones(len(init)) / speed)
        self.factors = Parameter(torch.ones(sources.shape[:2]) / speed)
        self.parameters: Sequence[Parameter] = [self.own, self.own_factor, self.factors]

    def prompt(self) -> Tensor:
        own = self.speed * self.own_factor[:, None] * self.own
        scaled = self.speed * self.factors[:, :, None] * self.sources
        joined = group(own.detach(), scaled.detach())
        return self.init + own + scaled[joined].sum(dim=0)

    def reader(self) -> PromptReader:
        return Current(self, len(self.init))


def group(target: Tensor, sources: Tensor) -> list[int]:
    """Places of the source vectors that join, the most similar to the target first.

    Args:
        target: [P, H].
        sources: [S, P, H].
    """
    means, mine = sources.mean(dim=1), target.mean(dim=0)
    similar = means @ mine / len(mine)
    ranked = [i for i in similar.argsort(descending=True, stable=True).tolist() if similar[i] >= 0]
    pairs = means @ means.T / len(mine)
    best, most = ranked[:1], 0.0
    for size in range(2, len(ranked) + 1):
        among = pairs[ranked[:size]][:, ranked[:size]]
        consistency = float((among.sum() - among.diagonal().sum()) / (size * (size - 1)))
        if consistency > most:
            best, most = ranked[:size], consistency
    return best
