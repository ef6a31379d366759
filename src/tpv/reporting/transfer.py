"""The page of a transfer: candidates with intervals, the ranking of sources, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tpv.reporting import figures
from tpv.reporting.page import Figure, Section, made_with, write_page
from tpv.reporting.tables import Table

SHOWN = 30  # sources drawn


def write_transfer(
    path: Path,
    task: str,
    reason: str,
    standings: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page of a `tpv.transfer` result.

    Args:
        standings, sources, curve: rows of the result's tables.

    Raises:
        TpvError: the place cannot be written.
    """
    sections = [_race(standings)]
    if curve:
        sections.append(_curve(curve))
    if sources:
        sections.append(_sources(sources))
    write_page(path, f"tpv transfer: {task}", [reason], sections, f"Made by {made_with()}.")


def _race(standings: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        (
            one["entrant"],
            f"{one['log_loss']:.3f}",
            f"{100 * one['accuracy']:.0f}",
            f"{100 * one['low']:.0f} – {100 * one['high']:.0f}",
            f"{one['weight']:.2f}",
            str(one["steps"]),
            f"{one['seconds']:.0f}",
        )
        for one in standings
    ]
    head = ("candidate", "log loss", "accuracy", "95 % interval", "weight", "steps", "seconds")
    folds = standings[0]["folds"]
    how = f"{folds}-fold cross-validation" if folds > 1 else "the validation split"
    note = (
        f"Judged by {how}: log loss in nats, after a temperature is fitted. Prompts that are not tuned are first "
        "calibrated (a temperature and a bias per label) on the other rows. The weight is how likely a candidate is "
        "to be the best for new rows; the first row is what answers. Accuracy in percent, with Wilson's interval. "
        "Seconds are a candidate's share of the trainings of its last round."
    )
    drawn = figures.intervals(
        [(one["entrant"], one["accuracy"], one["low"], one["high"]) for one in standings], "accuracy"
    )
    best = {(0, column) for column in range(len(head))}
    return Section(
        "Candidates",
        "Every candidate is judged on rows that it did not learn from.",
        [
            Figure(
                drawn,
                "Accuracy of each candidate with its interval; what answers first, then by log loss.",
                "candidates",
            )
        ],
        [Table("Candidates", head, rows, note, best=best, name="candidates")],
    )


def _curve(curve: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        (
            str(one["rows"]),
            f"{100 * one['accuracy']:.0f}",
            f"{100 * one['low']:.0f} – {100 * one['high']:.0f}",
            f"{one['log_loss']:.3f}",
        )
        for one in curve
    ]
    drawn = figures.intervals(
        [(f"{one['rows']} rows", one["accuracy"], one["low"], one["high"]) for one in curve], "accuracy"
    )
    return Section(
        "Would more rows help?",
        "The chosen candidate, trained on fewer rows of each fold and judged on the same ones.",
        [Figure(drawn, "Accuracy by the number of rows to learn from, with its interval.", "curve")],
        [Table("Fewer rows", ("rows", "accuracy", "95 % interval", "log loss"), rows, "", name="curve")],
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> Section:
    rows = [(one["source"], f"{one['loss']:.3f}", f"{100 * one['accuracy']:.0f}") for one in sources]
    note = (
        "Mean negative log-likelihood (nats) of the right label among the task's labels, with each source's prompt "
        "before the texts and nothing trained; and how many rows it labels right, in percent."
    )
    shown = sources[:SHOWN]
    drawn = figures.intervals([(one["source"], one["loss"], one["loss"], one["loss"]) for one in shown], "loss, nats")
    caption = "Loss of the labelled rows under each source, the best first."
    return Section(
        "Sources",
        "Vectors of the library, ranked by how likely they make the labelled rows.",
        [Figure(drawn, caption, "sources")],
        [Table("Sources", ("source", "loss", "accuracy"), rows, note, name="sources")],
    )
