"""The average of several random initializations, each tuned."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.candidates.random import random_member
from tpv.transfers.problem import Problem


@register.candidate("random_average", order=30, budgets=("thorough",))
@dataclass(frozen=True, kw_only=True)
class RandomAverageCandidate:
    """Several random initializations, each tuned; their probabilities are averaged.

    Attributes:
        count: number of initializations.
    """

    count: Annotated[int, Field(ge=2)] = 4

    def entrants(self, problem: Problem) -> list[Entrant]:
        members = tuple(random_member(problem, number) for number in range(self.count))
        return [Entrant(f"{self.count} random initializations, tuned, averaged", members)]
