"""What the paper claims, beside what a study found: one page with intervals and verdicts.

python benchmarks/claims.py RUN [--out docs/results/claims.md]

RUN is a run directory of `tpv run`, finished or not, with the paper's experiments: one of configs/protocol_smollm2.toml,
configs/paper.toml, configs/portable.toml or the like. What is not run yet is named on the page. The claims are data, in
`CLAIMS` and `transfer_claims`: a quotation, its place, what is calculated, and the line it is compared with.

The paper: Belanec, Ostermann, Srba, Bielikova, "Task Prompt Vectors: Effective Initialization through Multi-Task
Soft-Prompt Transfer", arXiv:2408.01119v1 (2024).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from tpv.errors import TpvError
from tpv.execution.directory import RunDirectory, open_run
from tpv.execution.reporting import read_run, study_of
from tpv.registry import register
from tpv.reporting.page import Section, write_markdown
from tpv.reporting.published import lookup, published
from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import Results, unique, where
from tpv.reporting.tables import MISSING, Table
from tpv.studies.cells import cells

MODES = (ORDINARY, "portable", "composable")  # a column each
HOLDS, FAILS, UNCLEAR, MISSED = "holds", "does not hold", "not clear", "not run yet"
RESAMPLES = 9999
MATCH = 2.0  # points within which two scores count as the same
KEPT = 0.5  # of the tuned score: the paper's own line for a task that a sum keeps (Figure 4)
RETAINED = 0.9  # of the tuned score; chance on two labels is above KEPT, and below this
ORTHOGONAL = 0.2  # twice the largest cosine that the paper prints
FEW, MANY = 10, 100  # shots
PAPER_TARGETS = ("scitail", "ag_news", "imdb", "snli", "yahoo_answers_topics")  # not "sst5", which is SST-2 there
PAPER_NAMES = {"dbpedia": "dbpedia_14", "yelp": "yelp_polarity", "yahoo": "yahoo_answers_topics"}  # embedded tasks

# Figures 2 and 3: the lower triangle, row by row, of MNLI, QNLI, DBpedia, TREC, SST2, Yelp. Off the diagonal they are equal.
OFF = ((0.04,), (0.03, 0.01), (0.02, 0.03, 0.03), (0.03, 0.03, 0.01, 0.02), (0.03, 0.01, 0.04, 0.02, 0.03))
PROMPTS_DIAGONAL = (0.09, 0.07, 0.10, 0.05, 0.06, 0.08)
VECTORS_DIAGONAL = (0.09, 0.09, 0.09, 0.06, 0.10, 0.08)
RELATED = (OFF[0][0], OFF[2][2], OFF[4][4])  # MNLI and QNLI, DBpedia and TREC, SST2 and Yelp
KEPT_IN_PAPER, PAIRS_IN_PAPER = 7, 15  # pairs in Figure 4, and in Figure 8

Cells = dict[tuple[str, int], float]  # a task (or pair of tasks) and the seed of an initialization -> a number


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        topic: the heading that it is listed under.
        quote: the paper's words.
        source: section, table or figure.
        paper: the paper's figure, in words.
        measured: what is calculated, with its unit.
        experiment: whose rows it needs.
        cells: the number of every task and initialization, from the rows of one mode.
        line: what the number is compared with.
        above: whether the claim is that the number is above the line; otherwise below.
        middle: `mean` or `median` over tasks; over initializations it is always the mean.
        digits: decimals to print.
        counted: the numbers are counted, not sampled, so that they have no interval.
    """

    topic: str
    quote: str
    source: str
    paper: str
    measured: str
    experiment: str
    cells: Callable[[Results, str], Cells] = field(repr=False)
    line: float = 0.0
    above: bool = True
    middle: str = "mean"
    digits: int = 1
    counted: bool = False


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and how many tasks and initializations it is from."""

    value: float
    low: float
    high: float
    tasks: int
    inits: int


# --- intervals and verdicts -----------------------------------------------------------------------------
def rectangle(found: Cells) -> tuple[list[str], list[int]]:
    """The tasks and initializations of the largest table without a gap: of a run that is not finished, some are missing."""
    tasks, counts = unique(task for task, _ in found), Counter(init for _, init in found)
    inits = [init for init, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    best: tuple[list[str], list[int]] = ([], [])
    for size in range(1, len(inits) + 1):
        some = inits[:size]
        whole = [task for task in tasks if all((task, init) in found for init in some)]
        if len(whole) * size > len(best[0]) * len(best[1]):
            best = whole, some
    return best


def estimate(found: Cells, middle: str = "mean") -> Estimate | None:
    """The middle over tasks of the mean over initializations, and its interval; None of nothing.

    Tasks and initializations are resampled independently of each other, which keeps pairs within a cell together (Owen,
    2007, "The pigeonhole bootstrap"); percentiles of 9,999 resamples.
    """
    tasks, inits = rectangle(found)
    if not tasks:
        return None
    matrix = np.array([[found[task, init] for init in inits] for task in tasks])
    centre = {"mean": np.mean, "median": np.median}[middle]

    def of(*drawn: Any, axis: int = -1) -> Any:
        chosen = iter(drawn)
        rows, columns = (next(chosen).astype(int) if size > 1 else np.zeros(1, int) for size in matrix.shape)
        return centre(matrix[rows[..., :, None], columns[..., None, :]].mean(-1), axis=axis)

    value = float(centre(matrix.mean(1)))
    sampled = [np.arange(size) for size in matrix.shape if size > 1]
    if not sampled:
        return Estimate(value, value, value, len(tasks), len(inits))
    done = bootstrap(sampled, of, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=np.random.default_rng(0))
    low, high = done.confidence_interval
    return Estimate(value, float(low), float(high), len(tasks), len(inits))


def judge(claim: Claim, one: Estimate | None) -> str:
    """What a number says of a claim: its whole interval is on the right side of the line, or on the wrong one."""
    if one is None:
        return MISSED
    if not claim.counted and min(one.tasks, one.inits) < 2:
        return UNCLEAR
    sign = 1 if claim.above else -1
    ends = sorted(sign * (end - claim.line) for end in (one.low, one.high))
    return HOLDS if ends[0] > 0 else FAILS if ends[1] <= 0 else UNCLEAR


def verdict(claim: Claim, found: dict[str, Estimate | None]) -> str:
    """The verdict over all modes: that of ordinary vectors, unless only vectors of another mode make it hold."""
    by_mode = {mode: judge(claim, one) for mode, one in found.items()}
    if by_mode[ORDINARY] == HOLDS:
        return HOLDS
    others = [mode for mode, said in by_mode.items() if said == HOLDS]
    if others:
        return f"{HOLDS} with {others[0]} vectors"
    return by_mode[ORDINARY]


# --- what is calculated ---------------------------------------------------------------------------------
def run_of(row: Row) -> int:
    """The initialization that a row's vectors come from."""
    return row.init_seed if row.vector_seed is None else row.vector_seed


def averaged(pairs: Iterable[tuple[tuple[str, int], float]]) -> Cells:
    """The mean of all numbers of a cell."""
    found: dict[tuple[str, int], list[float]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: statistics.fmean(values) for key, values in found.items()}


def combined(one: Cells, two: Cells, how: Callable[[float, float], float]) -> Cells:
    """What is calculated from two numbers of the same task and initialization."""
    return {key: how(value, two[key]) for key, value in one.items() if key in two}


def tuned(results: Results) -> Cells:
    return averaged(((row.task, run_of(row)), row.value) for row in results.tuned())


def moved(results: Results, mode: str) -> Cells:
    """A vector on other initializations less the tuned prompt, in points of exact match."""
    rows = where(results.of("cross_initialization", "exact_match"), method="moved", mode=mode)
    scores = averaged(((row.task, run_of(row)), row.value) for row in rows)
    return combined(scores, tuned(results), lambda a, b: 100 * (a - b))


def cosines(results: Results, mode: str, what: str) -> list[tuple[tuple[str, int], tuple[str, int], float]]:
    """Every pair of prompts or vectors, both ways round, with its cosine."""
    rows = where(results.of("similarity", "cosine"), method=what, mode=mode)
    ends = [((row.sources[0], row.init_seed), (row.sources[1], run_of(row)), row.value) for row in rows]
    return [*ends, *((b, a, value) for a, b, value in ends)]


def alike(results: Results, mode: str, what: str = "vectors") -> Cells:
    """Cosine with the same task's from other initializations."""
    return averaged((a, value) for a, b, value in cosines(results, mode, what) if a[0] == b[0])


def distinct(results: Results, mode: str) -> Cells:
    """The same less the cosine with other tasks' vectors from other initializations."""
    others = averaged((a, value) for a, b, value in cosines(results, mode, "vectors") if a[0] != b[0] and a[1] != b[1])
    return combined(alike(results, mode), others, lambda a, b: a - b)


def family_of(results: Results, task: str) -> str:
    return next((family.name for family in results.study.families if task in family.sources), task)


def related(results: Results, mode: str) -> Cells:
    """Cosine with vectors of the same family's other tasks less that with other families', from all initializations."""
    groups: dict[bool, Cells] = {}
    for same in (True, False):
        groups[same] = averaged(
            (a, value)
            for a, b, value in cosines(results, mode, "vectors")
            if a[0] != b[0] and (family_of(results, a[0]) == family_of(results, b[0])) == same
        )
    return combined(groups[True], groups[False], lambda a, b: a - b)


def pair_rows(results: Results, mode: str) -> list[Row]:
    """Scores of sums of two: of ordinary vectors with the lambda found on validation rows, of others the plain sum."""
    method = "sum" if mode == ORDINARY else "plain_sum"
    rows = where(results.of("combination", "exact_match"), method=method, mode=mode, home=False)
    return [row for row in rows if len(row.sources) == 2]


def pairs(results: Results, mode: str) -> dict[tuple[tuple[str, ...], int], float]:
    """By pair and initialization, the lower of its tasks' scores as a share of the tuned prompt's."""
    own = tuned(results)
    shares: dict[tuple[tuple[str, ...], int], dict[str, float]] = {}
    for row in pair_rows(results, mode):
        if own.get((row.task, run_of(row))):
            share = row.value / own[row.task, run_of(row)]
            shares.setdefault((row.sources, run_of(row)), {})[row.task] = share
    return {key: min(of.values()) for key, of in shares.items() if len(of) == 2}


def binary(results: Results, sources: Sequence[str]) -> bool:
    return all(task in results.study.tasks and len(results.study.tasks[task].labels) == 2 for task in sources)


def binary_pairs(results: Results, mode: str) -> Cells:
    found = pairs(results, mode)
    return {(" + ".join(of), init): share for (of, init), share in found.items() if binary(results, of)}


def kept_pairs(results: Results, mode: str) -> Cells:
    return {(" + ".join(of), init): float(share > KEPT) for (of, init), share in pairs(results, mode).items()}


def family_pairs(results: Results, mode: str) -> Cells:
    """By task: pairs with its own family less pairs with others."""
    groups: dict[bool, Cells] = {}
    for same in (True, False):
        groups[same] = averaged(
            ((task, init), share)
            for (of, init), share in pairs(results, mode).items()
            if (family_of(results, of[0]) == family_of(results, of[1])) == same
            for task in of
        )
    return combined(groups[True], groups[False], lambda a, b: a - b)


def scores(results: Results, shots: int, **wanted: object) -> Cells:
    """Scores of targets in points, of the metric that each is reported by."""
    found: list[Row] = []
    for name, task in results.study.tasks.items():
        found += where(results.of("transfer", task.metric), task=name, shots=shots, **wanted)
    return averaged(((row.task, row.init_seed), 100 * row.value) for row in found)


def best_single(results: Results, shots: int) -> Cells:
    """SPoT from one source: for each target the source with the best mean, as a reader of Table 2 compares."""
    rows = where(results.of("transfer", "exact_match"), method="spot", shots=shots)
    best: dict[str, Cells] = {}
    for sources in unique(row.sources for row in rows):
        found = scores(results, shots, method="spot", sources=sources)
        for target in unique(task for task, _ in found):
            mine = {key: value for key, value in found.items() if key[0] == target}
            if target not in best or statistics.fmean(mine.values()) > statistics.fmean(best[target].values()):
                best[target] = mine
    return {key: value for of in best.values() for key, value in of.items()}


def gain(results: Results, mode: str, other: str, shots: int) -> Cells:
    """The sum as an initialization less another initialization, in points."""
    rival = best_single(results, shots) if other == "spot" else scores(results, shots, method=other)
    return combined(scores(results, shots, method="sum", mode=mode), rival, lambda a, b: a - b)


def forgotten(results: Results, mode: str, method: str) -> Cells:
    """What subtracting a task's vector takes from that task, less what it takes from the other task, in points."""
    rows = where(results.of("negation", "exact_match"), method=method, mode=mode)
    left = {(row.sources, row.init_seed, row.task, row.scale): 100 * row.value for row in rows}
    found: Cells = {}
    for of, init in unique((row.sources, row.init_seed) for row in rows):
        lost, control = ([left.get((of, init, task, scale)) for scale in (0.0, 1.0)] for task in of)
        if None not in (*lost, *control):
            found[" less ".join(of), init] = (lost[0] - lost[1]) - (control[0] - control[1])
    return found


def steps(results: Results, mode: str) -> Cells:
    """Steps of multi-task SPoT over those of vectors, by size of the pool that a task is added to."""
    rows = results.of("cost", "steps")
    by_method = {
        method: averaged(((f"pool of {row.shots}", row.init_seed), row.value) for row in where(rows, method=method))
        for method in ("spot_multi", "vectors")
    }
    return combined(by_method["spot_multi"], by_method["vectors"], lambda a, b: a / b) if mode == ORDINARY else {}


# --- the claims -----------------------------------------------------------------------------------------
def paper_moved(task: str) -> float:
    """Table 1: vector on another initialization less prompt tuning."""
    return lookup(1, task, "moved", None).mean - lookup(1, task, "tuned", None).mean


def paper_gain(target: str, other: str, shots: int) -> float | None:
    """Tables 2 and 4: the sum less another initialization; None where the paper has no number."""
    mine = lookup(4, target, "sum", shots)
    rivals = [
        number.mean
        for place, number in published().items()
        if (place.table, place.task, place.method, place.shots) == (4, target, other, shots)
    ]
    return mine.mean - max(rivals) if mine and rivals else None


def paper_gains(other: str, shots: int) -> str:
    found = [paper_gain(target, other, shots) for target in PAPER_TARGETS]
    if None in found:
        return "no number (Figures 5 and 9)"
    return f"{statistics.fmean(found):+.1f} ({min(found):+.1f} to {max(found):+.1f} by target)"


MOVED_IN_PAPER = [paper_moved(place.task) for place in published() if place.method == "moved" and place.task != "avg"]
MEAN_OFF = statistics.fmean(value for row in OFF for value in row)
APART = (sum(map(sum, OFF)) - sum(RELATED)) / 12  # pairs of different families

INIT, ALIKE, SUMS, NEW, COST, LESS = (
    "Independence of the initialization",
    "Similarity",
    "Sums of two vectors",
    "Sums as initializations for new tasks",
    "The cost of one more task",
    "Subtracting a vector",
)
CLAIMS = (
    Claim(
        INIT,
        "The performance of task prompt vectors is independent of the random initialization for the majority of "
        "observed tasks",
        "section 4.2, Table 1",
        f"{statistics.median(MOVED_IN_PAPER):+.1f}",
        "vector on another initialization − tuned prompt, points, median over tasks",
        "cross_initialization",
        moved,
        line=-MATCH,
        middle="median",
    ),
    Claim(
        INIT,
        "The only exception is in the TREC task, where the performance decreases drastically",
        "section 4.2, Table 1",
        f"{statistics.fmean(MOVED_IN_PAPER):+.1f} ({paper_moved('trec'):+.1f} on TREC)",
        "the same, mean over tasks: what one or a few exceptions cost",
        "cross_initialization",
        moved,
        line=-MATCH,
    ),
    Claim(
        ALIKE,
        "task prompts … are close to orthogonal",
        "section 5, Figure 2",
        f"{statistics.fmean(PROMPTS_DIAGONAL):.3f}",
        "cosine of one task's prompts from different initializations",
        "similarity",
        partial(alike, what="prompts"),
        line=ORTHOGONAL,
        above=False,
        digits=3,
    ),
    Claim(
        ALIKE,
        "… and their corresponding task prompt vectors are close to orthogonal",
        "section 5, Figure 3",
        f"{statistics.fmean(VECTORS_DIAGONAL):.3f}",
        "cosine of one task's vectors from different initializations",
        "similarity",
        alike,
        line=ORTHOGONAL,
        above=False,
        digits=3,
    ),
    Claim(
        ALIKE,
        "The highest cosine similarities [are] on the diagonal",
        "section 4.2, Figure 3",
        f"{statistics.fmean(VECTORS_DIAGONAL) - MEAN_OFF:+.3f}",
        "cosine with vectors of the same task − of other tasks, different initializations",
        "similarity",
        distinct,
        digits=3,
    ),
    Claim(
        ALIKE,
        "Task prompt vectors from similar problems are more similar",
        "section 4.2, Figure 3",
        f"{statistics.fmean(RELATED) - APART:+.3f}",
        "cosine with other tasks of the same family − of other families, all pairs of initializations",
        "similarity",
        related,
        digits=3,
    ),
    Claim(
        SUMS,
        "most of the binary classification tasks retain their single-task performance on both of the tasks",
        "section 4.3, Figure 4",
        "above 0.5 on both in 3 of 3 pairs",
        "pairs of two-label tasks: the lower of both scores, as a share of the tuned prompt's",
        "combination",
        binary_pairs,
        line=RETAINED,
        digits=2,
    ),
    Claim(
        SUMS,
        "Combinations of task prompt vector pairs maintain single-task performance on specific observed tasks",
        "section 4.3, Figure 4",
        f"{KEPT_IN_PAPER} of {PAIRS_IN_PAPER} pairs: {KEPT_IN_PAPER / PAIRS_IN_PAPER:.2f}",
        "share of all pairs with both scores above half of the tuned prompt's",
        "combination",
        kept_pairs,
        line=math.floor(100 * KEPT_IN_PAPER / PAIRS_IN_PAPER) / 100,
        digits=2,
    ),
    Claim(
        SUMS,
        "Usually, tasks that solve the same NLU problem retain the most source task performance on both tasks",
        "appendix C, Figure 8",
        "no number (Figure 8)",
        "lower score of pairs within a family − of pairs across families, as a share of the tuned prompt's",
        "combination",
        family_pairs,
        digits=2,
    ),
    Claim(
        COST,
        "[SPoT] requires the training process to be fully repeated for each new task, resulting in higher "
        "computational costs",
        "section 4.3, Table 3",
        "no number (Table 3)",
        "steps to add a task: multi-task SPoT over vectors, mean over sizes of the pool",
        "cost",
        steps,
        line=1.1,
        digits=2,
        counted=True,
    ),
    Claim(
        LESS,
        "task prompt arithmetic has the highest potential for improving the unlearning … by subtracting",
        "section 6, future work",
        "not tried",
        "drop of the task whose vector is subtracted from the sum − drop of the other task, points",
        "negation",
        partial(forgotten, method="sum_own"),
    ),
    Claim(
        LESS,
        "the same, with what section 4.2 says of other initializations",
        "sections 4.2 and 6",
        "not tried",
        "the same, with the vector from another initialization",
        "negation",
        partial(forgotten, method="sum_other"),
    ),
)
RIVALS = (  # the method, the paper's words, their place, how the tables name it, and the line
    (
        "random",
        "task prompt vectors can be used in low-resource settings to effectively initialize prompt tuning on similar "
        "tasks",
        "abstract",
        "a random initialization",
        0.0,
    ),
    (
        "spot",
        "our combination of task prompt vectors can outperform the initialization with a single-task source "
        "soft-prompt on SciTail and IMDB",
        "section 4.3",
        "SPoT from the best single source",
        -MATCH,
    ),
    (
        "spot_multi",
        "matching the results of full multi-task soft-prompt transfer (SPoT)",
        "section 4.3",
        "multi-task SPoT",
        -MATCH,
    ),
    ("attempt", "the ATTEMPT method is significantly underperforming", "section 4.3", "ATTEMPT", 0.0),
)


def shown_shots(shots: Sequence[int]) -> list[int]:
    """0, and those nearest to 10 and 100, of the shots that a study has."""
    some = [shot for shot in shots if shot]
    near = [min(some, key=lambda shot: abs(shot - wanted)) for wanted in (FEW, MANY)] if some else []
    return unique([*([0] if 0 in shots else []), *near])


def transfer_claims(shots: Sequence[int]) -> list[Claim]:
    """The claims of Tables 2 and 4, one for each rival and number of shots."""
    return [
        Claim(
            NEW,
            quote,
            f"{place}, Tables 2 and 4",
            paper_gains(rival, shot),
            f"sum − {named}, points, {shot} shots",
            "transfer",
            partial(gain, other=rival, shots=shot),
            line=line,
        )
        for rival, quote, place, named, line in RIVALS
        for shot in shown_shots(shots)
    ]
