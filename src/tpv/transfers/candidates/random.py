"""Prompt tuning from random initializations."""

from dataclasses import dataclass

from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.members import TunedMember
from tpv.transfers.problem import Problem


@register.candidate("random", order=20, budgets=("quick", "standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class RandomCandidate:
    """A random initialization, tuned: plain prompt tuning."""

    def entrants(self, problem: Problem) -> list[Entrant]:
        return [Entrant("random initialization, tuned", (random_member(problem, 0),))]


def random_member(problem: Problem, number: int) -> TunedMember:
    """The problem's initialization of this number, tuned."""
    return TunedMember(f"tuned random {number}", problem.init(number))
