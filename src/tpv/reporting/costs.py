"""What methods cost, beside what they score."""

from __future__ import annotations

from tpv.reporting.results import Results, cell, kinds, made_from, of_kind, unique
from tpv.reporting.tables import Cell, Table


def cost_table(results: Results, experiment: str) -> Table | None:
    """Parameters and seconds of each kind of row of an experiment; None where nothing is known of them."""
    trained = results.of(experiment, "trained")
    if not trained:
        return None
    seconds, before = results.of(experiment, "seconds"), results.of(experiment, "seconds_before")
    rows: list[tuple[Cell, ...]] = []
    for kind in kinds(trained):
        counts = sorted(unique(row.value for row in of_kind(trained, kind)))
        times = (cell(of_kind(each, kind), unit=1) for each in (seconds, before))
        rows.append((results.study.named(kind), ", ".join(f"{count:,.0f}" for count in counts), *times))
    return Table(
        "What each method costs",
        ("method", "parameters trained", "seconds", "seconds before"),
        rows,
        note="Parameters: those that train on the rows of a task. Seconds: one such training, its share of the bank it "
        "trained in; mean and deviation over tasks, sizes and initializations. Seconds before: everything that it "
        "starts from, the sources' own prompts included, which other trainings share. Measured on the machine of the "
        f"run and kept apart from the results. {made_from(experiment)}",
        name=f"{experiment}_costs",
    )
