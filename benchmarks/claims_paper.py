"""The claims of the paper that `claims.py` tests, as data.

Belanec, Ostermann, Srba, Bielikova, "Task Prompt Vectors: Effective Initialization through Multi-Task Soft-Prompt
Transfer", arXiv:2408.01119v1 (2024).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from claims_measured import (
    KEPT,
    Cells,
    alike,
    binary_pairs,
    distinct,
    family_pairs,
    forgotten,
    gain,
    kept_pairs,
    moved,
    related,
    steps,
)

from tpv.reporting.published import lookup, published
from tpv.reporting.results import Results, unique

MATCH = 2.0  # points within which two scores count as the same
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
TOPICS = (INIT, ALIKE, SUMS, NEW, COST, LESS)
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


RULES = (
    ("a cell", "a number, its 95 % interval, and the numbers of tasks (or pairs, targets, pools) × initializations"),
    (
        "the interval",
        "Tasks and initializations are resampled independently of each other, 9,999 times, and differences are taken "
        "within a task and initialization (pigeonhole bootstrap, scipy.stats.bootstrap, percentiles). Test rows are "
        "not resampled, and pairs count as if they shared no task. "
        "With two or three initializations it is too narrow rather than too wide. Nothing corrects for the "
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
        "trained to work on any initialization; likewise composable ones, which are also trained to be added.",
    ),
    ("not run yet", "The study has no scores for it."),
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
