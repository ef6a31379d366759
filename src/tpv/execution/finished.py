"""What came of a work unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from tpv.studies.jobs.base import Job


@dataclass
class Finished:
    """What came of a unit.

    Attributes:
        ran: jobs whose artifacts now exist.
        failed: what went wrong, by job.
        warned: trainings that ended with a warning.
        cut: what was said of texts longer than the limit.
    """

    ran: list[Job] = field(default_factory=list)
    failed: dict[Job, str] = field(default_factory=dict)
    warned: int = 0
    cut: list[str] = field(default_factory=list)

    def add(self, other: Finished) -> None:
        self.ran += other.ran
        self.failed |= other.failed
        self.warned += other.warned
        self.cut += other.cut
