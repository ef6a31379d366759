"""How far the probabilities of the source tasks' prompts can be trusted: reliability diagrams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tpv.metrics.probability import BINS, bins
from tpv.outputs.scores import LabelTable
from tpv.reporting import figures
from tpv.reporting.page import Figure, Section
from tpv.reporting.results import Results, cell, made_from, unique, where
from tpv.reporting.tables import Cell, Table

METRICS = (("accuracy", "accuracy", 100.0, 1), ("log_loss", "log loss", 1.0, 3), ("ece", "ECE", 100.0, 1))


def section(results: Results) -> Section | None:
    """Accuracy, log loss and calibration error of tuned prompts, each task with its diagram; None without any."""
    rows: list[tuple[Cell, ...]] = []
    diagrams: dict[str, tuple[NDArray[np.float64], ...]] = {}
    scores = where(results.of("sources", "ece"), method="tuned")
    for task in results.in_order(row.task for row in scores):
        values: list[Cell] = []
        for metric, _, unit, digits in METRICS:
            mine = where(results.of("sources", metric), method="tuned", task=task)
            values.append(cell(mine, unit=unit, digits=digits))
        rows.append((results.study.short(task), *values))
        jobs = unique(row.job for row in where(scores, task=task))
        tables = [results.predictions(job, task) for job in jobs] if results.predictions else []
        known = [LabelTable.of(table) for table in tables if table and "log_probs" in table.column_names]
        if known:
            gold = np.concatenate([each.gold for each in known])
            diagrams[results.study.short(task)] = bins(gold, np.concatenate([each.probabilities for each in known]))
    if not rows:
        return None
    note = (
        "Percent, except log loss (nats); mean and standard deviation over initializations. accuracy: the likeliest "
        f"of the task's label words is right; ECE: expected calibration error over {BINS} bins. {made_from('sources')}"
    )
    head = ("task", *(name for _, name, *_ in METRICS))
    table = Table("Probabilities of tuned prompts", head, rows, note, name="calibration")
    drawn = [
        Figure(
            figures.reliability(diagrams),
            "Accuracy by confidence, the probability of the likeliest label, over all initializations; on the diagonal "
            "probabilities mean what they say. The size of a mark is the number of rows.",
            "reliability",
        )
    ]
    text = "Label words are ranked by their probabilities, without a calibrator."
    return Section("Calibration", text, drawn if diagrams else [], [table])
