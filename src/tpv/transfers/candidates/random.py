"""Prompt tuning from random initializations."""

from dataclasses import dataclass

from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.contest import Contest
from tpv.transfers.members import TunedMember


@register.candidate("random", order=20, budgets=("quick", "standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class Random:
    """A random initialization, tuned: plain prompt tuning."""

    def entrants(self, contest: Contest) -> list[Entrant]:
        return [Entrant("random initialization, tuned", (random_member(contest, 0),))]


def random_member(contest: Contest, number: int) -> TunedMember:
    """The contest's initialization of this number, tuned."""
    return TunedMember(f"tuned random {number}", contest.init(number))
