"""The best sources of the library, as they are and tuned (SPoT, Vu et al., 2022)."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.members import FixedMember, Start, TunedMember
from tpv.transfers.problem import Problem


@register.candidate("source", order=40, budgets=("quick", "standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class SourceCandidate:
    """Each of the best sources, tuned, and as it is.

    Attributes:
        count: number of sources; by default 1 for a quick race, 3 otherwise.
    """

    count: Annotated[int, Field(ge=1)] | None = None

    def entrants(self, problem: Problem) -> list[Entrant]:
        found = []
        for place, name in enumerate(problem.best(self.count or problem.level.sources)):
            start = _starter(problem, place)
            found.append(Entrant(f"{name}, as it is", (FixedMember(f"fixed source {place}", start),)))
            found.append(Entrant(f"{name}, tuned", (TunedMember(f"tuned source {place}", start),)))
        return found


def _starter(problem: Problem, place: int) -> Start:
    """The prompt of the source at this place of a ranking."""
    return lambda names: problem.start(problem.vectors[names[place]])
