"""What `claims.py` calculates from the rows of a run: a number for every task and initialization of each claim."""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import Results, unique, where

KEPT = 0.5  # of the tuned score: the paper's own line for a task that a sum keeps (Figure 4)

Subject = tuple[str, ...]  # a task, a pair of tasks, or a size of the pool
Cells = dict[tuple[Subject, int], float]  # a subject and the seed of an initialization -> a number


def run_of(row: Row) -> int:
    """The initialization that a row's vectors come from."""
    return row.init_seed if row.vector_seed is None else row.vector_seed


def averaged(pairs: Iterable[tuple[tuple[Subject, int], float]]) -> Cells:
    """The mean of all numbers of a cell; nan only where all are."""
    found: dict[tuple[Subject, int], list[float]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: statistics.fmean(list(filter(math.isfinite, values)) or [math.nan]) for key, values in found.items()}


def by_run(rows: Iterable[Row]) -> Cells:
    """Scores by task and the initialization that the vector comes from."""
    return averaged((((row.task,), run_of(row)), row.value) for row in rows)


def combined(one: Cells, two: Cells, how: Callable[[float, float], float] = operator.sub) -> Cells:
    """What is calculated from two numbers of the same subject and initialization."""
    return {key: how(value, two[key]) for key, value in one.items() if key in two}


def unlearned(results: Results) -> list[str]:
    """The source tasks whose tuned prompts are right no more often than the most frequent label is."""
    own, frequent = results.tuned(), where(results.of("sources", "majority"), method="tuned")
    mine, least = (averaged((((row.task,), 0), row.value) for row in rows) for rows in (own, frequent))
    return [task for (task,), _ in mine if mine[(task,), 0] <= least.get(((task,), 0), 0.0)]


def moved(results: Results, mode: str) -> Cells:
    """A vector on other initializations less the tuned prompt, in points of exact match."""
    rows = where(results.of("cross_initialization", "exact_match"), method="moved", mode=mode)
    return combined(by_run(rows), by_run(results.tuned()), lambda a, b: 100 * (a - b))


def cosines(results: Results, mode: str, what: str) -> list[tuple[tuple[Subject, int], tuple[Subject, int], float]]:
    """Every pair of prompts or vectors, both ways round, with its cosine."""
    rows = where(results.of("similarity", "cosine"), method=what, mode=mode)
    ends = [((row.sources[:1], row.init_seed), (row.sources[1:], run_of(row)), row.value) for row in rows]
    return [*ends, *((b, a, value) for a, b, value in ends)]


def alike(results: Results, mode: str, what: str = "vectors") -> Cells:
    """Cosine with the same task's from other initializations."""
    return averaged((a, value) for a, b, value in cosines(results, mode, what) if a[0] == b[0])


def distinct(results: Results, mode: str) -> Cells:
    """The same less the cosine with other tasks' vectors from other initializations."""
    others = averaged((a, value) for a, b, value in cosines(results, mode, "vectors") if a[0] != b[0] and a[1] != b[1])
    return combined(alike(results, mode), others)


def relatives(results: Results, tasks: Sequence[str]) -> bool:
    """Whether source tasks are of one family."""
    return any(set(tasks) <= set(family.sources) for family in results.study.families)


def related(results: Results, mode: str) -> Cells:
    """Cosine with vectors of the same family's other tasks less that with other families', from all initializations."""
    others = [(a, (*a[0], *b[0]), value) for a, b, value in cosines(results, mode, "vectors") if a[0] != b[0]]
    near, far = (
        averaged((a, value) for a, both, value in others if relatives(results, both) == same) for same in (True, False)
    )
    return combined(near, far)


def pairs(results: Results, mode: str) -> Cells:
    """By pair, the lower of its tasks' scores as a share of the tuned prompt's, nan where that is 0.

    Ordinary vectors are added with the lambda found on validation rows, others as they are.
    """
    own = by_run(results.tuned())
    method = "sum" if mode == ORDINARY else "plain_sum"
    rows = where(results.of("combination", "exact_match"), method=method, mode=mode, home=False)
    shares: dict[tuple[Subject, int], list[float]] = {}
    for row in rows:
        score = own.get(((row.task,), run_of(row)))
        if len(row.sources) == 2 and score is not None:
            shares.setdefault((row.sources, run_of(row)), []).append(row.value / score if score else math.nan)
    return {key: float(np.min(of)) for key, of in shares.items() if len(of) == 2}  # a nan stays one


def binary(results: Results, tasks: Sequence[str]) -> bool:
    return all(task in results.study.tasks and len(results.study.tasks[task].labels) == 2 for task in tasks)


def binary_pairs(results: Results, mode: str) -> Cells:
    return {key: share for key, share in pairs(results, mode).items() if binary(results, key[0])}


def above(found: Cells, line: float) -> Cells:
    """1 where a share is above a line, else 0."""
    return {key: float(share > line) if math.isfinite(share) else share for key, share in found.items()}


def kept_pairs(results: Results, mode: str) -> Cells:
    return above(pairs(results, mode), KEPT)


def family_pairs(results: Results, mode: str) -> Cells:
    """By task: pairs with its own family less pairs with others."""
    near, far = (
        averaged(
            (((task,), init), share)
            for (both, init), share in pairs(results, mode).items()
            if relatives(results, both) == same
            for task in both
        )
        for same in (True, False)
    )
    return combined(near, far)


def scores(results: Results, shots: int, **wanted: object) -> Cells:
    """Scores of targets in points, of the metric that each is reported by."""
    found: list[Row] = []
    for name, task in results.study.tasks.items():
        found += where(results.of("transfer", task.metric), task=name, shots=shots, **wanted)
    return averaged((((row.task,), row.init_seed), 100 * row.value) for row in found)


def mean_of(found: Cells, subject: Subject) -> float:
    return statistics.fmean(value for key, value in found.items() if key[0] == subject)


def best_single(results: Results, shots: int) -> Cells:
    """SPoT from one source: for each target the source with the best mean, as a reader of Table 2 compares."""
    rows = where(results.of("transfer", "exact_match"), method="spot", shots=shots)
    by_source = [scores(results, shots, method="spot", sources=sources) for sources in unique(r.sources for r in rows)]
    best: Cells = {}
    for target in unique(target for of in by_source for target, _ in of):
        mine = [{key: value for key, value in of.items() if key[0] == target} for of in by_source]
        best |= max(filter(None, mine), key=lambda of: mean_of(of, target))
    return best


def gain(results: Results, mode: str, rival: str, shots: int) -> Cells:
    """The sum as an initialization less another one, in points; nan where neither is ever right."""
    mine = scores(results, shots, method="sum", mode=mode)
    other = best_single(results, shots) if rival == "spot" else scores(results, shots, method=rival)
    right = {key[0] for of in (mine, other) for key, value in of.items() if value}
    return {key: value if key[0] in right else math.nan for key, value in combined(mine, other).items()}


def forgotten(results: Results, mode: str, method: str) -> Cells:
    """What subtracting a task's vector takes from that task, less what it takes from the other task, in points."""
    rows = where(results.of("negation", "exact_match"), method=method, mode=mode)
    left = {(row.sources, row.init_seed, row.task, row.scale): 100 * row.value for row in rows}
    found: Cells = {}
    for both, init in unique((row.sources, row.init_seed) for row in rows):
        lost, control = ([left.get((both, init, task, scale)) for scale in (0.0, 1.0)] for task in both)
        if None not in (*lost, *control):
            found[both, init] = (lost[0] - lost[1]) - (control[0] - control[1])
    return found


def steps(results: Results, mode: str) -> Cells:
    """Steps of multi-task SPoT over those of vectors, by size of the pool that a task is added to."""
    rows = results.of("cost", "steps") if mode == ORDINARY else []
    spot, vectors = (
        averaged((((f"pool of {row.shots}",), row.init_seed), row.value) for row in where(rows, method=method))
        for method in ("spot_multi", "vectors")
    )
    return combined(spot, vectors, operator.truediv)
