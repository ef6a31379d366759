"""What adding a task costs each method: Table 3, measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tpv.reporting import figures
from tpv.reporting.page import Figure, Section
from tpv.reporting.results import Results, made_from, not_run, unique, value, where
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies.records import Row

EXPERIMENT = "cost"
RETRAINED = {  # what each method has to train when a task is added to a pool
    "SPoT multi-task": "one prompt, again, on the data of the pool and the new task",
    "ATTEMPT": "the new task's prompt; then attention and target prompts again",
    "vectors": "the new task's prompt; its vector is then added",
}
SAME = 1.1  # steps at the largest pool over steps at the smallest, up to which cost does not grow


def _sized(rows: Sequence[Row], size: int) -> list[float]:
    """Values by pool size; a row's field `shots` holds it."""
    return [row.value for row in where(rows, shots=size)]


def section(results: Results) -> Section:
    """Steps and seconds by pool size, and whether they grow with it."""
    heading = "The cost of one more task (Table 3)"
    steps, seconds = results.of(EXPERIMENT, "steps"), results.of(EXPERIMENT, "seconds")
    if not steps:
        return Section(heading, not_run(EXPERIMENT))
    sizes = sorted({row.shots for row in (*steps, *seconds) if row.shots is not None})
    methods = unique([*RETRAINED, *(row.method for row in steps)])
    methods = [method for method in methods if where(steps, method=method)]
    measured: list[tuple[Cell, ...]] = []
    ticks: list[tuple[Cell, ...]] = []
    bars: dict[str, dict[str, list[float]]] = {"steps": {}, "seconds": {}}
    for method in methods:
        found = {"steps": where(steps, method=method), "seconds": where(seconds, method=method)}
        for metric, rows in found.items():
            of = [value(_sized(rows, size), unit=1, digits=0 if metric == "steps" else 1) for size in sizes]
            measured.append((method, metric, *(one or MISSING for one in of)))
            bars[metric][method] = [one.mean if one else math.nan for one in of]
        known = [mean for mean in bars["steps"][method] if math.isfinite(mean)]
        grows = known[-1] / known[0] if len(known) > 1 and known[0] else None
        ticks.append(
            (
                method,
                RETRAINED.get(method, MISSING),
                MISSING if grows is None else f"{grows:.2f}",
                MISSING if grows is None else "yes" if grows <= SAME else "no",
            )
        )
    tables = [
        Table(
            "Table 3, measured: training when one task is added to a pool",
            ("method", "of", *(f"pool of {size}" for size in sizes)),
            measured,
            note="Mean and deviation over runs. Steps of the optimiser, and seconds of the machine that ran it "
            f"(timings are kept apart from the results). {made_from(EXPERIMENT)}",
            name="cost",
        ),
        Table(
            "What has to be trained when a task is added",
            ("method", "trained", "steps, largest pool / smallest", "independent of the pool"),
            ticks,
            note=f"independent: the steps at the largest pool are at most {SAME} times those at the smallest. "
            f"{made_from(EXPERIMENT)}",
            name="table3",
        ),
    ]
    groups = [f"pool of {size}" for size in sizes]
    drawings = [
        Figure(
            figures.grouped_bars(groups, series, f"{metric} to add a task", limit=None),
            f"{metric.capitalize()} to add one task, by the number of tasks in the pool: mean over runs. "
            f"{made_from(EXPERIMENT)}",
            f"cost_{metric}",
        )
        for metric, series in bars.items()
        if any(math.isfinite(mean) for values in series.values() for mean in values)
    ]
    text = "A pool of n source tasks is ready; one more arrives. What is trained then, and for how long?"
    return Section(heading, text, drawings, tables)
