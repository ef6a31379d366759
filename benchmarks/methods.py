"""The literature's methods side by side: a page of means with intervals, from a run of configs/methods.toml.

python benchmarks/methods.py RUN [--out docs/results/methods.md]

`tpv report RUN` has every target and size, and significance tests; this page has means over targets.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from claims import Estimate, estimate
from claims_measured import Cells, best_single, combined, pairs, relatives, scores

from tpv.errors import TpvError
from tpv.execution.reporting import read_run, study_of
from tpv.reporting.about import Kind
from tpv.reporting.page import Section, write_markdown
from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import Results, kinds, of_kind, unique, where
from tpv.reporting.tables import MISSING, Cell, Table

BASE, SPOT = Kind("random"), "spot"
INTERVAL = "95 % intervals resample tasks and initializations independently of each other, not test rows."


def shown(one: Estimate | None, form: str) -> str:
    """A number with its interval."""
    return MISSING if one is None else f"{one.value:{form}} ({one.low:{form}} to {one.high:{form}})"


def by_kind(results: Results, kind: Kind, shots: int) -> Cells:
    """Scores of targets by one method, in points."""
    wanted = {"method": kind.method, "mode": kind.mode, "merge": kind.merge, "parameters": kind.parameters}
    return scores(results, shots, **wanted)


def of_targets(results: Results, every: Sequence[Kind], shots: Sequence[int]) -> Table:
    """A row for each method: the mean over targets, and what it gains over a random initialization."""
    sources = unique(kind for kind in every if kind.method != SPOT)
    table: list[tuple[str, list[Cells]]] = [
        (results.study.named(kind), [by_kind(results, kind, size) for size in shots]) for kind in sources
    ]
    if len(sources) < len(every):
        table.append(("SPoT, the best source by hindsight", [best_single(results, size) for size in shots]))
    bases = [by_kind(results, BASE, size) for size in shots]
    rows: list[tuple[Cell, ...]] = []
    for name, columns in table:
        cells: list[Cell] = []
        for mine, base in zip(columns, bases, strict=True):
            gain = estimate(combined(mine, base))
            cells += [f"{statistics.fmean(mine.values()):.1f}" if mine else MISSING, shown(gain, "+.1f")]
        rows.append((name, *cells))
    head = [column for size in shots for column in (f"{size} shots", "less random")]
    targets = len({task for (task, _) in bases[-1]})
    note = f"Mean over {targets} targets of the metric that each is reported by, in points. {INTERVAL}"
    return Table("New tasks", ("initialization or method", *head), rows, note, name="targets")


def of_costs(results: Results, every: Sequence[Kind]) -> Table:
    """A row for each method: what trains for a target, and for how long."""
    rows: list[tuple[Cell, ...]] = []
    parts = [results.of("transfer", metric) for metric in ("trained", "seconds", "seconds_before")]
    for kind in every:
        trained, seconds, before = ([row.value for row in of_kind(part, kind)] for part in parts)
        if trained:
            counts = ", ".join(f"{count:,.0f}" for count in sorted(set(trained)))
            times = (f"{statistics.median(each):.1f}" if each else MISSING for each in (seconds, before))
            rows.append((results.study.named(kind), counts, *times))
    note = (
        "Median seconds of training one target's prompt (its share of the bank it trained in), and of everything that "
        "it starts from, which other targets share. On the machine of the run."
    )
    return Table("Costs", ("method", "parameters", "seconds", "seconds before"), rows, note, name="costs")


def of_sums(results: Results, modes: Sequence[str]) -> Table:
    """A row for each way to train the vectors: what a sum of two keeps."""
    rows = [(mode, shown(estimate(pairs(results, mode)), ".2f")) for mode in modes]
    note = (
        "The lower of the two tasks' scores as a share of its tuned prompt's, mean over pairs. Ordinary vectors: "
        f"with the lambda found on validation rows. Others: lambda 1. {INTERVAL}"
    )
    return Table("Sums of two vectors", ("vectors", "kept"), rows, note, name="sums")


def of_unlearning(results: Results) -> Table:
    """A row for each way to forget a task, and factor: what is lost there and on controls."""
    every = results.of("negation", "exact_match")
    rows: list[tuple[Cell, ...]] = []
    for kind in kinds(every):
        mine = of_kind(every, kind)
        whole = {key(row): 100 * row.value for row in where(mine, scale=0.0)}
        for scale in sorted({row.scale for row in mine if row.scale}):
            lost: dict[str, Cells] = {"forgotten": {}, "family": {}, "others": {}}
            for row in where(mine, scale=scale):
                control = "family" if relatives(results, row.sources) else "others"
                part = "forgotten" if row.task == row.sources[0] else control
                lost[part][row.sources, row.init_seed] = whole[key(row)] - 100 * row.value
            told = (shown(estimate(lost[part]), ".1f") for part in ("forgotten", "family", "others"))
            rows.append((results.study.named(kind), f"{scale:g}", *told))
    note = (
        "Points of exact match lost. Factor: of the subtracted vector, or of the steps of gradient ascent. A prompt "
        f"tuned for one task knows little of its control to begin with. {INTERVAL}"
    )
    head = ("method", "factor", "on the forgotten task", "on its family", "on another family")
    return Table("Unlearning", head, rows, note, name="unlearning")


def key(row: Row) -> tuple[object, ...]:
    """What a score at factor 0 and one at another factor have in common."""
    return row.sources, row.task, row.init_seed


def write_methods(out: Path, results: Results) -> None:
    """Write the page.

    Raises:
        TpvError: the run has no rows of `transfer`, or `out` cannot be written.
    """
    study, rows = results.study, results.all_of("transfer")
    every = unique(kind._replace(sources=()) if kind.method != SPOT else kind for kind in kinds(rows))
    if BASE not in every:
        raise TpvError("the run has no scores of a random initialization", expected="a run of configs/methods.toml")
    shots = sorted({row.shots for row in rows if row.shots is not None})
    modes = unique(row.mode for row in results.of("combination", "exact_match"))
    tables = [of_targets(results, every, shots), of_costs(results, kinds(rows))]
    if modes:
        tables.append(of_sums(results, [ORDINARY, *(mode for mode in modes if mode != ORDINARY)]))
    if results.of("negation", "exact_match"):
        tables.append(of_unlearning(results))
    intro = [f"The study “{study.name}” on {study.model}: means over targets or pairs of tasks."]
    settings = Table("Settings", ("setting", "value"), list(study.facts), name="settings")
    sections = [
        Section("Results", "The run's own report has each target and size.", tables=tables),
        Section("The study", "Everything is from one run.", tables=[settings]),
    ]
    write_markdown(out, "Methods side by side: results", intro, sections, f"Made by {study.made_with}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory of `tpv run`")
    parser.add_argument("--out", type=Path, default=Path("docs/results/methods.md"))
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as place:
            directory, rows, timings = read_run(options.run, Path(place))
        write_methods(options.out, Results(study_of(directory), rows, timings))
    except TpvError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
