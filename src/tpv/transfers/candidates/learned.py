"""Learned coefficients of the whole library, alone and then tuned."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.members import LearnedMember
from tpv.transfers.problem import Problem


@register.candidate("learned", order=60, budgets=("standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class LearnedCandidate:
    """A sum of the best sources with coefficients learned from the rows; alone, and then tuned.

    Attributes:
        count: number of sources.
        way: `gradient`, or `search` (CMA-ES, as in LoraHub).
        per_token: one coefficient for each vector and token.
    """

    count: Annotated[int, Field(ge=1)] = 8
    way: Literal["gradient", "search"] = "gradient"
    per_token: bool = False

    def entrants(self, problem: Problem) -> list[Entrant]:
        count = len(problem.best(self.count))
        if not count:
            return []
        about = f"{self.way} {self.per_token} {count}"
        alone = LearnedMember(f"learned {about}", count, self.way, self.per_token)
        found = [Entrant(f"learned sum of {count} sources", (alone,))]
        if problem.level.name == "thorough":
            then = LearnedMember(f"learned and tuned {about}", count, self.way, self.per_token, tuned=True)
            found.append(Entrant(f"learned sum of {count} sources, tuned", (then,)))
        return found
