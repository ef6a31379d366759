"""Best against second best: tests over runs and over examples, corrected for how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tpv.errors import TpvError
from tpv.metrics import INVALID
from tpv.outputs.scores import said_column
from tpv.outputs.text import per_example
from tpv.reporting.about import TaskInfo
from tpv.reporting.results import Predictions
from tpv.reporting.stats import (
    Bootstrap,
    Comparison,
    best_against_second,
    bonferroni,
    holm,
    paired_bootstrap,
    paired_bootstrap_mean,
)
from tpv.reporting.tables import MISSING, Cell, Table, Value

ALPHA = 0.05


@dataclass(frozen=True)
class Contest:
    """Methods that were scored on one thing: their scores by run, and the scoring jobs of those runs."""

    table: str
    where: str
    task: TaskInfo | None
    metric: str
    scores: Mapping[str, Sequence[float]]
    jobs: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Verdict:
    """What the tests say of a contest; corrections are over all contests of its table that could be tested."""

    contest: Contest
    comparison: Comparison
    bonferroni: float | None
    holm: float | None

    @property
    def star(self) -> bool:
        """The difference is significant after Bonferroni's correction, as in the paper."""
        return self.bonferroni is not None and self.bonferroni < ALPHA


def decide(contests: Sequence[Contest]) -> list[Verdict]:
    """A verdict for every contest with two methods or more."""
    pairs = [(contest, best_against_second(contest.scores)) for contest in contests]
    found = [(contest, comparison) for contest, comparison in pairs if comparison is not None]
    ps = [comparison.test.p for _, comparison in found if comparison.test is not None]
    corrected = iter(zip(bonferroni(ps), holm(ps), strict=True))
    return [
        Verdict(contest, comparison, *(next(corrected) if comparison.test is not None else (None, None)))
        for contest, comparison in found
    ]


def outputs_of(task: TaskInfo, jobs: Sequence[str], predictions: Predictions) -> tuple[np.ndarray, np.ndarray] | None:
    """Gold ids [n] and the ids said [runs, n] by some runs on one test set; None if a run stores no predictions."""
    number = {word: label for label, word in enumerate(task.labels)}
    tables = [predictions(job, task.name) for job in jobs]
    if any(table is None for table in tables):
        return None
    examples = tables[0]["example"].to_pylist()
    for job, table in zip(jobs, tables, strict=True):
        if table["example"].to_pylist() != examples:
            raise TpvError(f"predictions of job {job}", expected=f"those examples that job {jobs[0]} has", got="others")
    gold = [number[word] for word in tables[0]["gold"].to_pylist()]
    said = [[number.get(word, INVALID) for word in said_column(table).to_pylist()] for table in tables]
    return np.array(gold), np.array(said)


def values_of(task: TaskInfo, jobs: Sequence[str], metric: str, predictions: Predictions) -> np.ndarray | None:
    """Scores of each example of a text task, [runs, n]; None where they are not stored, or not a mean over examples."""
    tables = [predictions(job, task.name) for job in jobs]
    if not tables or any(table is None for table in tables):
        return None
    values = [per_example(table, metric) for table in tables]
    return None if any(each is None for each in values) else np.array(values)


def resample(verdict: Verdict, predictions: Predictions | None) -> Bootstrap | None:
    """The paired bootstrap of best against second; None where a run's predictions are not known.

    Correlations are not resampled.
    """
    contest = verdict.contest
    best, second = (contest.jobs.get(name, ()) for name in (verdict.comparison.best, verdict.comparison.second))
    if (
        predictions is None
        or contest.task is None
        or contest.metric == "pearson"
        or not best
        or not second
        or not all((*best, *second))
    ):
        return None
    if not contest.task.labels:
        a, b = (values_of(contest.task, jobs, contest.metric, predictions) for jobs in (best, second))
        return None if a is None or b is None else paired_bootstrap_mean(a, b)
    found = outputs_of(contest.task, [*best, *second], predictions)
    if found is None:
        return None
    gold, outputs = found
    a, b = outputs[: len(best)], outputs[len(best) :]
    return paired_bootstrap(gold, a, b, contest.metric, positive=contest.task.positive)


def _p(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2g}" if value >= 1e-4 else "<0.0001"


def significance_table(verdicts: Sequence[Verdict], resampled: Sequence[Bootstrap | None]) -> Table:
    """Every comparison behind a star."""
    rows: list[tuple[Cell, ...]] = []
    for verdict, boot in zip(verdicts, resampled, strict=True):
        versus = verdict.comparison
        test = versus.test
        a, b = versus.best_summary, versus.second_summary
        rows.append(
            (
                f"{verdict.contest.table}: {verdict.contest.where}",
                versus.best,
                versus.second,
                Value(100 * a.mean, 100 * a.std, a.n),
                Value(100 * b.mean, 100 * b.std, b.n),
                f"{a.n} v. {b.n}",
                test.name if test else MISSING,
                _p(test.p if test else None),
                _p(verdict.bonferroni),
                _p(verdict.holm),
                "yes" if verdict.star else "no",
                Value(100 * boot.difference, signed=True) if boot else MISSING,
                f"{100 * boot.low:.1f} to {100 * boot.high:.1f}" if boot else MISSING,
                _p(boot.p if boot else None),
            )
        )
    return Table(
        "Every comparison of best and second best",
        (
            "comparison",
            "best",
            "second",
            "mean of best",
            "mean of second",
            "runs",
            "t test",
            "p",
            "Bonferroni",
            "Holm",
            "star",
            "bootstrap difference",
            "95 % interval",
            "bootstrap p",
        ),
        rows,
        note="Two-sided two-sample t tests over runs: Student's for equally many runs, Welch's otherwise; corrected "
        f"over all comparisons of the same table. A star is a Bonferroni-corrected p below {ALPHA}. The bootstrap "
        "resamples test examples, the same draw for both methods, and keeps the runs: it answers another question "
        "(other examples) than the t test (other initializations). It covers the comparisons of Tables 1, 2 and 4. A "
        "single run has no test.",
        name="significance",
    )
