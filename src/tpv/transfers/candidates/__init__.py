"""Candidates for the best start from a few rows: a file each, registered with `@tpv.register.candidate`.

A candidate is a frozen dataclass, its fields the parameters, with a method `entrants(problem)` that says what enters
the race: names with the members whose probabilities are averaged (`tpv.transfers.members`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tpv.transfers.members import Member


@dataclass(frozen=True, eq=False)
class Entrant:
    """What enters the race.

    Attributes:
        name: in words, such as "sst2, tuned".
        members: the average of their probabilities is its answer.
        candidate: the registered name of what made it.
    """

    name: str
    members: tuple[Member, ...]
    candidate: str = ""
