"""Merges of the best sources, as they are and tuned."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from tpv.merging import merge
from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.members import FixedMember, Start, TunedMember
from tpv.transfers.problem import Problem

METHODS: dict[str, dict[str, Any]] = {"linear": {}, "mean": {}, "ties": {}}


@register.candidate("merged", order=50, budgets=("quick", "standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class MergedCandidate:
    """Sum, mean and TIES of the best sources on an initialization, as they are; the sum also tuned.

    Attributes:
        count: how many sources are merged.
        methods: registered merges.
        tuned: those whose result is also tuned.
    """

    count: Annotated[int, Field(ge=2)] = 3
    methods: tuple[str, ...] = ("linear", "mean", "ties")
    tuned: tuple[str, ...] = ("mean",)

    def entrants(self, problem: Problem) -> list[Entrant]:
        names = problem.best(self.count)
        if len(names) < 2:
            return []
        found = []
        for method in self.methods:
            what = f"{'sum' if method == 'linear' else method} of {', '.join(names)}"
            start, key = _starter(problem, method, len(names)), f"{method} of {len(names)}"
            found.append(Entrant(f"{what}, as it is", (FixedMember(f"fixed {key}", start),)))
            if method in self.tuned and problem.level.name != "quick":
                found.append(Entrant(f"{what}, tuned", (TunedMember(f"tuned {key}", start),)))
        return found


def _starter(problem: Problem, method: str, count: int) -> Start:
    """The first initialization with a merge of the best sources."""
    return lambda names: problem.init() + merge([problem.vectors[name] for name in names[:count]], method)
