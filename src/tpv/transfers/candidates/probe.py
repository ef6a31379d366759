"""Logistic regression on the frozen model's hidden states, without a prompt and after the best source's."""

from dataclasses import dataclass

from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.members import ProbedMember
from tpv.transfers.problem import Problem


@register.candidate("probe", order=70, budgets=("quick", "standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class ProbeCandidate:
    """A probe: logistic regression on hidden states of the frozen model, alone and after the best source's prompt."""

    def entrants(self, problem: Problem) -> list[Entrant]:
        found = [Entrant("probe", (ProbedMember("probe"),))]
        return found + [
            Entrant(f"probe after {name}", (ProbedMember("probe after the best", after_best=True),))
            for name in problem.best(1)
        ]
