"""What a run was about, as its report needs to know it beyond the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tpv.reporting.published import is_paper_model
from tpv.reporting.records import ORDINARY


@dataclass(frozen=True)
class TaskInfo:
    """A task as the report needs it; `metric` is the one that transfer reports, `positive` the class F1 is of."""

    name: str
    labels: tuple[str, ...]
    metric: str
    positive: int


@dataclass(frozen=True)
class FamilyInfo:
    """Source tasks and the target tasks their vectors are transferred to."""

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What a run was about.

    Attributes:
        compat: the authors' quirks were on, so that their "SST5" is comparable.
        facts: settings to print.
        made_with: versions and machine, for the foot of the page.
        missing: jobs that the run has still to do.
        whole_data: the tasks have all the rows that the hub has for them, not a local copy's or a limited number.
    """

    name: str
    model: str
    compat: bool
    tasks: Mapping[str, TaskInfo]
    families: tuple[FamilyInfo, ...]
    shots: tuple[int, ...]
    facts: Sequence[tuple[str, str]]
    made_with: str
    whole_data: bool = True
    missing: int = 0

    @property
    def beside_paper(self) -> bool:
        """Whether the paper's numbers may stand beside these: its model, and its data."""
        return is_paper_model(self.model) and self.whole_data

    def short(self, task: str) -> str:
        """The task's name without the folder that all tasks share (`mini/`)."""
        folders = {name.rpartition("/")[0] for name in self.tasks}
        return task.removeprefix(f"{folders.pop()}/") if len(folders) == 1 else task

    def joined(self, sources: Sequence[str]) -> str:
        """`a + b` from the sources of a row."""
        return " + ".join(map(self.short, sources))

    def named(self, kind: Kind) -> str:
        """What a table calls a kind of row."""
        return " ".join([kind.plain, *map(self.short, kind.sources)]) + kind.suffix


METHODS = {  # what tables call the methods whose names say it badly
    "spot": "SPoT",
    "spot_multi": "SPoT multi-task",
    "attempt": "ATTEMPT",
    "attempt_single": "ATTEMPT, one target",
    "spot_retrieval": "SPoT retrieval",
    "mpt": "MPT",
    "dtvg": "DTVG",
    "ultra_low": "ultra-low-dimensional",
    "sum_ascent": "sum, gradient ascent",
    "tuned_ascent": "tuned, gradient ascent",
    "sum_own": "sum - own vector",
    "sum_other": "sum - other initialization's vector",
    "tuned_own": "tuned - own vector",
    "tuned_other": "tuned - other initialization's vector",
    "prompts_all_rows": "prompts, all rows",
    "vectors_all_rows": "vectors, all rows",
}
BY_SOURCE = ("spot",)  # methods that are told apart by their source


class Kind(NamedTuple):
    """What rows of an experiment are compared by: the part of their identity that is neither a task nor a seed."""

    method: str
    mode: str = ORDINARY
    home: bool = False
    merge: str = ""
    parameters: str = ""
    sources: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """The method, in words."""
        if self.method == "merge":
            return self.merged
        return self._with_parameters(METHODS.get(self.method, self.method.replace("_", " ")))

    @property
    def merged(self) -> str:
        """The merge and those of its parameters that were set, in words: `ties (density 0.2)`."""
        return self._with_parameters(self.merge)

    def _with_parameters(self, name: str) -> str:
        values = json.loads(self.parameters) if self.parameters else {}
        told = ", ".join(f"{parameter} {value}" for parameter, value in values.items())
        return f"{name} ({told})" if told else name

    @property
    def suffix(self) -> str:
        """How its vectors were trained, and where they were added, in words."""
        return f", {self.mode}" * (self.mode != ORDINARY) + ", at home" * self.home


class Identified(Protocol):
    """What has the identity of a row: a row, or the cell that it comes from."""

    @property
    def method(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def home(self) -> bool: ...
    @property
    def merge(self) -> str: ...
    @property
    def parameters(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...


def kind(row: Identified) -> Kind:
    """The kind of a row."""
    sources = row.sources if row.method in BY_SOURCE else ()
    return Kind(row.method, row.mode, row.home, row.merge, row.parameters, sources)
