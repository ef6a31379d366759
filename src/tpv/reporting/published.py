"""The paper's own numbers, for columns "ours against the paper's": `published.toml`, read once."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple

from tpv.reporting.stats import Summary


class Printed(NamedTuple):
    """Where a number is printed: table 1, 2 or 4; `source` is the task of method `spot`, `shots` None in Table 1."""

    table: int
    task: str
    method: str
    source: str
    shots: int | None


@dataclass(frozen=True)
class Published(Summary):
    """A printed number: mean and standard deviation over n runs, in percent.

    Attributes:
        star: whether the paper marks it as significant.
        really: the task that was scored; it differs from the column's name for `sst5` (quirk 4).
    """

    star: bool
    really: str


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(files("tpv.reporting").joinpath("published.toml").read_text(encoding="utf-8"))


@cache
def published() -> Mapping[Printed, Published]:
    """Every number of Tables 1, 2 and 4 of Belanec et al. (2024), `sst5` as printed included."""
    runs = _content()["runs"]
    places = {}
    for column in _content()["column"]:
        task, methods = column["task"], dict(column["methods"])
        rows = {("spot", source): numbers for source, numbers in methods.pop("spot", {}).items()}
        rows |= {(method, ""): numbers for method, numbers in methods.items()}
        for (method, source), numbers in rows.items():
            for shots, (mean, std, *star) in zip(column.get("shots", [None]), numbers, strict=True):
                n = runs.get(method, runs["usual"])
                number = Published(mean, std, n, star == ["*"], column.get("really", task))
                places.update({Printed(table, task, method, source, shots): number for table in column["tables"]})
    return MappingProxyType(places)


def lookup(
    table: int, task: str, method: str, shots: int | None, *, source: str = "", compat: bool = False
) -> Published | None:
    """The number printed for a task and a method, None where there is none.

    Table 1 has the methods `tuned` and `moved`, and the task `avg`; Tables 2 and 4 have `random`, `spot` (with the
    source task), `spot_multi`, `attempt`, `sum`. Only with `compat` is what the paper measured on another task
    (`sst5`, see `Published.really`) a number for the task.
    """
    number = published().get(Printed(table, task, method, source, shots))
    return number if number is not None and (compat or number.really == task) else None


def is_paper_model(name: str) -> bool:
    """Whether a model's name is of the one that the numbers were measured on."""
    return name in _content()["models"]
