"""What the paper claims, beside what a study found: one page with intervals and verdicts.

python benchmarks/claims.py RUN [--out docs/results/claims.md]

RUN is a run directory of `tpv run`, finished or not, with the paper's experiments: of configs/protocol_smollm2.toml,
configs/paper.toml, configs/portable.toml or the like. The page names what is not run yet. The claims are data, in
`CLAIMS` and `transfer_claims`: a quotation, its place, what is calculated, and the line it is compared with.

The paper: Belanec, Ostermann, Srba, Bielikova, "Task Prompt Vectors: Effective Initialization through Multi-Task
Soft-Prompt Transfer", arXiv:2408.01119v1 (2024).
"""

from __future__ import annotations

import argparse
import math
import operator
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from tpv.errors import TpvError
from tpv.execution.directory import RunDirectory
from tpv.execution.reporting import read_run, study_of
from tpv.registry import register
from tpv.reporting.about import METHODS
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

# Figures 2 and 3, row by row: MNLI, QNLI, DBpedia, TREC, SST2, Yelp. Off the diagonal both print the same numbers.
OFF = ((0.04,), (0.03, 0.01), (0.02, 0.03, 0.03), (0.03, 0.03, 0.01, 0.02), (0.03, 0.01, 0.04, 0.02, 0.03))
PROMPTS_DIAGONAL = (0.09, 0.07, 0.10, 0.05, 0.06, 0.08)
VECTORS_DIAGONAL = (0.09, 0.09, 0.09, 0.06, 0.10, 0.08)
RELATED = (OFF[0][0], OFF[2][2], OFF[4][4])  # MNLI and QNLI, DBpedia and TREC, SST2 and Yelp
KEPT_IN_PAPER, PAIRS_IN_PAPER = 7, 15  # pairs in Figure 4, and in Figure 8

Subject = tuple[str, ...]  # a task, a pair of tasks, or a size of the pool
Cells = dict[tuple[Subject, int], float]  # a subject and the seed of an initialization -> a number


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
def rectangle(found: Cells) -> tuple[list[Subject], list[int]]:
    """Subjects and initializations of the largest table without a gap; a run that is not finished has gaps."""
    subjects, counts = unique(subject for subject, _ in found), Counter(init for _, init in found)
    inits = [init for init, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    best: tuple[list[Subject], list[int]] = ([], [])
    for size in range(1, len(inits) + 1):
        some = inits[:size]
        whole = [subject for subject in subjects if all((subject, init) in found for init in some)]
        if len(whole) * size > len(best[0]) * len(best[1]):
            best = whole, some
    return best


def estimate(found: Cells, middle: str = "mean") -> Estimate | None:
    """The middle over tasks of the mean over initializations, and its interval; None of nothing. A nan counts as missing.

    Tasks and initializations are resampled independently of each other, which keeps pairs within a cell together (Owen,
    2007, "The pigeonhole bootstrap"); percentiles of 9,999 resamples.
    """
    found = {key: value for key, value in found.items() if math.isfinite(value)}
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
    random = np.random.default_rng(0)
    done = bootstrap(sampled, of, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=random)
    low, high = done.confidence_interval
    return Estimate(value, float(low), float(high), len(tasks), len(inits))


def judge(claim: Claim, one: Estimate | None) -> str:
    """What a number says of a claim: its whole interval is on the right side of the line, or on the wrong one."""
    if one is None or (not claim.counted and min(one.tasks, one.inits) < 2):
        return UNCLEAR
    sign = 1 if claim.above else -1
    ends = sorted(sign * (end - claim.line) for end in (one.low, one.high))
    return HOLDS if ends[0] > 0 else FAILS if ends[1] <= 0 else UNCLEAR


def verdict(judged: Mapping[str, str]) -> str:
    """The verdict over all modes: that of ordinary vectors, unless only vectors of another mode make the claim hold."""
    others = [mode for mode, said in judged.items() if said == HOLDS and mode != ORDINARY]
    return f"{HOLDS} with {others[0]} vectors" if others and judged[ORDINARY] != HOLDS else judged[ORDINARY]


# --- what is calculated ---------------------------------------------------------------------------------
def run_of(row: Row) -> int:
    """The initialization that a row's vectors come from."""
    return row.init_seed if row.vector_seed is None else row.vector_seed


def averaged(pairs: Iterable[tuple[tuple[Subject, int], float]]) -> Cells:
    """The mean of all numbers of a cell."""
    found: dict[tuple[Subject, int], list[float]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: statistics.fmean(values) for key, values in found.items()}


def by_run(rows: Iterable[Row]) -> Cells:
    """Scores by task and the initialization that the vector comes from."""
    return averaged((((row.task,), run_of(row)), row.value) for row in rows)


def combined(one: Cells, two: Cells, how: Callable[[float, float], float] = operator.sub) -> Cells:
    """What is calculated from two numbers of the same subject and initialization."""
    return {key: how(value, two[key]) for key, value in one.items() if key in two}


def learned(results: Results) -> list[str]:
    """The source tasks whose tuned prompts are right more often than the most frequent label is."""
    tasks = unique(row.task for row in results.tuned())
    mine, frequent = (
        averaged((((row.task,), 0), row.value) for row in rows)
        for rows in (results.tuned(), where(results.of("sources", "majority"), method="tuned"))
    )
    return [task for task in tasks if mine[(task,), 0] > frequent.get(((task,), 0), 0.0)]


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
    found = [(key, share) for key, share in pairs(results, mode).items() if math.isfinite(share)]
    near, far = (
        averaged(
            (((task,), init), share)
            for (both, init), share in found
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


# --- the claims -----------------------------------------------------------------------------------------
def paper_moved(task: str) -> float:
    """Table 1: vector on another initialization less prompt tuning."""
    return lookup(1, task, "moved", None).mean - lookup(1, task, "tuned", None).mean


def paper_gain(target: str, other: str, shots: int) -> float | None:
    """Tables 2 and 4: the sum less another initialization; None where the paper has no number, or both are 0."""
    mine = lookup(4, target, "sum", shots)
    rivals = [
        number.mean
        for place, number in published().items()
        if (place.table, place.task, place.method, place.shots) == (4, target, other, shots)
    ]
    return mine.mean - max(rivals) if mine and rivals and (mine.mean or any(rivals)) else None


def paper_gains(other: str, shots: int) -> str:
    found = [gain for target in PAPER_TARGETS if (gain := paper_gain(target, other, shots)) is not None]
    if not found:
        return "no number (Figures 5 and 9)"
    return f"{statistics.fmean(found):+.1f} ({min(found):+.1f} to {max(found):+.1f} on {len(found)} targets)"


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
        "task prompt vectors perform well irrespective of their initialization",
        "section 4.2, Table 1",
        f"{statistics.fmean(MOVED_IN_PAPER):+.1f} ({paper_moved('trec'):+.1f} on TREC, “the only exception”)",
        "the same, mean over tasks: what exceptions cost",
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
        line=KEPT_IN_PAPER / PAIRS_IN_PAPER,
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
        "task prompt arithmetic has the highest potential for improving the unlearning … by subtracting",
        "section 6, future work",
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
        "task-prompt-vector-based initialization can outperform or match SPoT … for specific tasks",
        "section 1",
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
            partial(gain, rival=rival, shots=shot),
            line=line,
        )
        for rival, quote, place, named, line in RIVALS
        for shot in shown_shots(shots)
    ]


# --- the page -------------------------------------------------------------------------------------------
def minus(text: str) -> str:
    """A number with the sign that is printed."""
    return text.replace("-", "−")


def shown(one: Estimate | None, digits: int, *, signed: bool = False, counted: bool = False) -> str:
    """`−0.1 (−0.4 to +0.2), 6 × 3`; no interval where nothing was resampled."""
    if one is None:
        return MISSING
    sign = "+" if signed else ""
    value, low, high = (minus(f"{number:{sign}.{digits}f}") for number in (one.value, one.low, one.high))
    interval = "" if counted or max(one.tasks, one.inits) < 2 else f" ({low} to {high})"
    return f"{value}{interval}, {one.tasks} × {one.inits}"


def claims_of(results: Results) -> list[Claim]:
    """All claims, topic by topic."""
    every = [*CLAIMS, *transfer_claims(results.study.shots)]
    return [claim for topic in (INIT, ALIKE, SUMS, NEW, COST, LESS) for claim in every if claim.topic == topic]


@dataclass(frozen=True)
class Judged:
    """A claim, its numbers by mode, and what they say."""

    claim: Claim
    found: Mapping[str, Estimate | None]
    verdict: str


def judged(claim: Claim, every: Results, usable: Results, modes: Sequence[str]) -> Judged:
    """A claim with its verdict.

    Args:
        every: all rows, which say whether it was run.
        usable: those of the tasks that were learned.
    """
    found = {mode: estimate(claim.cells(usable, mode), claim.middle) for mode in modes}
    if claim.counted:
        found = {mode: one and replace(one, low=one.value, high=one.value) for mode, one in found.items()}
    said = {mode: judge(claim, one) if claim.cells(every, mode) else MISSED for mode, one in found.items()}
    return Judged(claim, found, verdict(said))


def claim_table(topic: str, every: Sequence[Judged], modes: Sequence[str]) -> Table:
    """The claims of a topic."""
    rows: list[tuple[str, ...]] = []
    told = ""
    for one in every:
        claim = one.claim
        quote = f"“{claim.quote}” ({claim.source})"
        cells_ = [shown(one.found[mode], claim.digits, signed=claim.line <= 0, counted=claim.counted) for mode in modes]
        line = f"{'above' if claim.above else 'below'} {minus(f'{claim.line:.3g}')}"
        paper = minus(claim.paper) if claim.paper[:1] in "+-" else claim.paper
        rows.append(("as above" if quote == told else quote, claim.measured, line, paper, *cells_, one.verdict))
        told = quote
    head = ("claim", "measured", "holds if", "paper", *(f"{mode} vectors" for mode in modes), "verdict")
    return Table(topic, head, rows, best={(number, len(head) - 1) for number in range(len(rows))}, name="claims")


def only(found: Cells, subject: Subject) -> Cells:
    return {key: value for key, value in found.items() if key[0] == subject}


def paper_name(task: str) -> str:
    """What the paper's tables call a task; the embedded model's are named after theirs."""
    name = task.rpartition("/")[2]
    return PAPER_NAMES.get(name, name)


def by_task(results: Results, modes: Sequence[str]) -> Table | None:
    """Vectors on other initializations, task by task."""
    found = {mode: moved(results, mode) for mode in modes}
    tasks = results.in_order(task for of in found.values() for (task,), _ in of)
    rows = []
    for task in tasks:
        name = paper_name(task)
        paper = minus(f"{paper_moved(name):+.1f}") if lookup(1, name, "moved", None) else MISSING
        mine = (shown(estimate(only(found[mode], (task,))), 1, signed=True) for mode in modes)
        rows.append((results.study.short(task), paper, *mine))
    head = ("task", "paper, Table 1", *(f"{mode} vectors" for mode in modes))
    title = "Vector on another initialization − tuned prompt, points of exact match"
    return Table(title, head, rows, name="by_task") if rows else None


def by_pair(results: Results, modes: Sequence[str]) -> Table | None:
    """The lower score of pairs, by the kind of pair."""
    kinds: dict[str, Callable[[Subject], bool]] = {
        "same family": partial(relatives, results),
        "different families": lambda both: not relatives(results, both),
        "both with two labels": partial(binary, results),
        "one or none with two labels": lambda both: not binary(results, both),
    }
    found = {mode: pairs(results, mode) for mode in modes}
    rows = []
    for name, wanted in kinds.items():
        mine = [{key: share for key, share in found[mode].items() if wanted(key[0])} for mode in modes]
        if any(mine):
            rows.append((name, "lower score / tuned", *(shown(estimate(of), 2) for of in mine)))
            for line in (KEPT, RETAINED):
                shares = (shown(estimate(above(of, line)), 2) for of in mine)
                rows.append((name, f"share of pairs above {line}", *shares))
    head = ("pairs", "measured", *(f"{mode} vectors" for mode in modes))
    return Table("Sums of two vectors, by kind of pair", head, rows, name="by_pair") if rows else None


def by_target(results: Results, modes: Sequence[str]) -> Table | None:
    """The sum less the best single source, target by target."""
    rows = []
    for shots in shown_shots(results.study.shots):
        found = {mode: gain(results, mode, "spot", shots) for mode in modes}
        for task in results.in_order(task for of in found.values() for (task,), _ in of):
            name = paper_name(task)
            number = paper_gain(name, "spot", shots) if name in PAPER_TARGETS else None
            paper = MISSING if number is None else minus(f"{number:+.1f}")
            mine = (shown(estimate(only(found[mode], (task,))), 1, signed=True) for mode in modes)
            rows.append((results.study.short(task), str(shots), paper, *mine))
    head = ("target", "shots", "paper, Tables 2 and 4", *(f"{mode} vectors" for mode in modes))
    return Table("Sum − SPoT from the best single source, points", head, rows, name="by_target") if rows else None


def cost_table(results: Results) -> Table | None:
    """Steps and seconds to add a task, and the numbers that are trained."""
    rows = []
    for method in ("vectors", "spot_multi", "attempt"):
        for metric in ("steps", "seconds"):
            mine = where(results.of("cost", metric), method=method)
            sizes = sorted({row.shots for row in mine if row.shots is not None})
            if sizes:
                ends = [statistics.fmean(row.value for row in where(mine, shots=size)) for size in sizes]
                digits = 1 if metric == "seconds" else 0
                told = "; ".join(
                    f"pool of {size}: {value:,.{digits}f}" for size, value in zip(sizes, ends, strict=True)
                )
                rows.append((METHODS.get(method, method), metric, told))
    trained = unique(row.n for row in results.of("similarity", "cosine"))
    if trained:
        paper = "the paper's 100 × 768 are 76,800"
        rows.append(("vectors", "numbers trained for a task", f"{', '.join(f'{n:,}' for n in trained)} ({paper})"))
    return Table("What one more task takes", ("method", "measured", "result"), rows, name="cost") if rows else None


RULES = (
    ("a cell", "a number, its 95 % interval, and the numbers of tasks (or pairs, targets, pools) × initializations"),
    (
        "the interval",
        "Tasks and initializations are resampled independently of each other, 9,999 times, and differences are taken "
        "within a task and initialization (pigeonhole bootstrap, scipy.stats.bootstrap, percentiles). Test rows are not "
        "resampled. With two or three initializations it is too narrow rather than too wide. Nothing corrects for the "
        "number of claims.",
    ),
    ("holds", "The whole interval is on the side of the line that the column “holds if” names."),
    ("does not hold", "The whole interval is on the line or on its other side."),
    (
        "not clear",
        "The interval crosses the line, or there are fewer than two tasks or two initializations to calculate it from.",
    ),
    (
        "holds with portable vectors",
        "It does not for ordinary vectors (tuned prompt − its initialization, as in the paper), and does for vectors "
        "that were trained to work on any initialization; likewise composable ones, which are also trained to be added.",
    ),
    ("not run yet", "The run has no scores for it."),
    (
        "not learned",
        "The tuned prompts of a source task are right no more often than the most frequent label: nothing can be lost. "
        "Likewise a target on which neither of two initializations is ever right is left out, here and in the paper's "
        "figures.",
    ),
    ("matching scores", f"Within {MATCH:g} points. The paper says “only slightly” and “match” without a number."),
    (
        "retained scores",
        f"Above {RETAINED} of the tuned prompt's. The paper's own line of {KEPT} is below what guessing gets on two "
        "labels.",
    ),
    ("close to orthogonal", f"A cosine below {ORTHOGONAL}, twice the largest that the paper prints."),
    (
        "sums of two",
        "Ordinary vectors: initialization + λ · sum (eq. 4), with λ chosen on validation rows, on the initialization "
        "that both come from. Others: λ = 1, on an initialization that they have not seen.",
    ),
    (
        "the paper",
        "Belanec, Ostermann, Srba, Bielikova: Task Prompt Vectors (2024), arXiv:2408.01119v1. T5-base, full data sets. "
        "Its figures here are differences of the means that Tables 1, 2 and 4 print, and means of what Figures 2 and 3 "
        "print. Those for new tasks leave out the column “SST5”, where the authors' code scores SST-2; their F1 of two "
        "labels is of the positive class. Compare directions, not sizes.",
    ),
)


def usable_rows(results: Results) -> Results:
    """The rows without those of source tasks that were not learned; all of transfer and cost."""
    known = {*learned(results), ""}
    rows = [
        row
        for experiment in results.experiments
        for split in ("test", "validation")
        for row in results.all_of(experiment, split)
        if experiment in ("transfer", "cost") or known.issuperset(row.sources)
    ]
    return Results(results.study, rows)


def write_claims(out: Path, results: Results, missing: Sequence[str]) -> str:
    """Write the page; returns how many claims have each verdict, in words.

    Args:
        missing: the parts of the study that are not run, in words.

    Raises:
        TpvError: `out` cannot be written.
    """
    study, usable = results.study, usable_rows(results)
    seen = {row.mode for experiment in results.experiments for row in results.all_of(experiment)}
    modes = [mode for mode in MODES if mode == ORDINARY or mode in seen]
    every = [judged(claim, results, usable, modes) for claim in claims_of(results)]
    topics = unique(one.claim.topic for one in every)
    tables = [claim_table(topic, [one for one in every if one.claim.topic == topic], modes) for topic in topics]
    counts = Counter(one.verdict for one in every)
    order = [HOLDS, *(f"{HOLDS} with {mode} vectors" for mode in MODES[1:]), FAILS, UNCLEAR, MISSED]
    told = "; ".join(f"{said}: {counts[said]}" for said in order if counts[said])
    lost = [task for task in unique(row.task for row in results.tuned()) if task not in learned(results)]
    intro = [
        "The claims of “Task Prompt Vectors” (Belanec et al., 2024), each beside the paper's figure and what the study "
        f"“{study.name}” found on {study.model}. {told}.",
        f"Tasks: {', '.join(map(study.short, study.tasks))}."
        + (f" Not learned, and left out: {', '.join(map(study.short, lost))}." if lost else "")
        + (f" Not run yet: {'; '.join(missing)}." if missing else " All parts were run."),
    ]
    details = [by_task(usable, modes), by_pair(usable, modes), by_target(results, modes), cost_table(results)]
    settings = Table("Settings of the study", ("setting", "value"), list(study.facts), name="settings")
    sections = [
        Section("Claims", "The last section says what columns and verdicts mean.", tables=tables),
        Section("In detail", "The same numbers by task, pair and target.", tables=[one for one in details if one]),
        Section(
            "How to read this page", "", tables=[Table("Terms", ("term", "meaning"), RULES, name="rules"), settings]
        ),
    ]
    write_markdown(out, "The paper's claims, tested", intro, sections, f"Made by {study.made_with}.")
    return told


def missing_parts(directory: RunDirectory) -> list[str]:
    """Experiments that are not in a run's config or not finished, and modes of vectors that it does not train."""
    config, found = directory.config, []
    every = cells(config)
    for entry in register.experiment:
        jobs = unique(cell.job for cell in every if cell.experiment == entry.name)
        done = sum(map(directory.done, jobs))
        if entry.builtin and not jobs:
            found.append(f"{entry.name} (not in this study)")
        elif done < len(jobs):
            found.append(f"{entry.name} ({done} of {len(jobs)} jobs done)")
    found += [f"{mode} vectors (not in this study)" for mode in MODES[1:] if mode not in config.vectors.modes]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory of `tpv run`")
    parser.add_argument("--out", type=Path, default=Path("docs/results/claims.md"))
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as place:  # a run that goes on in another process is left alone
            directory, rows, timings = read_run(options.run, Path(place))
        told = write_claims(options.out, Results(study_of(directory), rows, timings), missing_parts(directory))
    except TpvError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.out}: {told}")


if __name__ == "__main__":
    main()
