"""The average of several random initializations, each tuned."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.candidates.random import random_member
from tpv.transfers.contest import Contest


@register.candidate("random_average", order=30, budgets=("thorough",))
@dataclass(frozen=True, kw_only=True)
class RandomAverage:
    """Several random initializations, each tuned; their probabilities are averaged."""

    count: Annotated[int, Field(ge=2)] = 4

    def entrants(self, contest: Contest) -> list[Entrant]:
        members = tuple(random_member(contest, number) for number in range(self.count))
        return [Entrant(f"{self.count} random initializations, tuned, averaged", members)]
