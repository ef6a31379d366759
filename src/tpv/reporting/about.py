"""What a run was about, as its report needs to know it beyond the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tpv.reporting.published import is_paper_model


@dataclass(frozen=True)
class TaskInfo:
    """A task as the report needs it; `metric` is the one that transfer reports, `positive` the class F1 is of."""

    name: str
    labels: tuple[str, ...]
    metric: Literal["exact_match", "f1", "macro_f1", "pearson"]
    positive: int


@dataclass(frozen=True)
class Family:
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
    families: tuple[Family, ...]
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

    def joined(self, sources: str) -> str:
        """`a + b` from the `a+b` of a row."""
        return " + ".join(map(self.short, sources.split("+")))

    def method(self, name: str) -> str:
        """A method's name with the task in it made short."""
        return " ".join(self.short(word) if word in self.tasks else word for word in name.split(" "))
