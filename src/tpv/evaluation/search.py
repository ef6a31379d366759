"""The search for lambda: the scale at which a vector, or a sum of vectors, does best on all its tasks (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.answers import MatchRule
from tpv.evaluation.encode import encode_examples
from tpv.evaluation.grid import scale_grid
from tpv.evaluation.score import evaluate, greedy_labels
from tpv.models import Backbone
from tpv.outputs.label import label_tokens
from tpv.outputs.scores import Scores
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.tasks import Task

GRID = scale_grid(0.05)  # the paper's
FIRST_ROWS = 50  # of each task, in the first round of a race; each round has twice as many as the one before
DEVIATIONS = 3.0  # a scale is dropped once it is so many standard errors behind the leader


@dataclass(frozen=True)
class ScaleSearch:
    """What a search found.

    Attributes:
        scale: the best; the smallest of equally good ones.
        scales: those that were tried.
        exact_match: mean over tasks of each, on the rows that it was scored on.
        rows: how many rows of each task each was scored on; fewer than there are for those that were dropped.
    """

    scale: float
    scales: tuple[float, ...]
    exact_match: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class GridSearch:
    """What a search over a whole grid found.

    Attributes:
        scale: the best; the smallest of equally good ones.
        exact_match: mean over tasks at each scale.
        scores: of each task, at each scale.
    """

    scale: float
    exact_match: tuple[float, ...]
    scores: list[list[Scores]]


def score_grid(
    backbone: Backbone,
    tasks: Sequence[Task],
    prompts: Sequence[SoftPrompt],
    scales: Sequence[float],
    split: str = "validation",
    *,
    match: MatchRule | None = None,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> GridSearch:
    """Score the prompt of every scale on every row of every task.

    Raises:
        TpvError: what `tpv.evaluate` raises.
    """
    means = [0.0] * len(prompts)
    found = []
    for task in tasks:
        every = evaluate(backbone, task, prompts, split, max_input_length=max_input_length, match=match)
        for i, scores in enumerate(every):
            means[i] += scores.exact_match / len(tasks)
        found.append(every)
    best = max(range(len(means)), key=lambda i: (means[i], -scales[i]))
    return GridSearch(scales[best], tuple(means), found)


def search_scale(
    backbone: Backbone,
    init: SoftPrompt,
    vector: TaskPromptVector,
    tasks: Sequence[Task],
    scales: Sequence[float] = GRID,
    *,
    split: str = "validation",
    race: bool = True,
    seed: int = 0,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> ScaleSearch:
    """The scale of `init + scale * vector` with the highest mean exact match over tasks.

    A race scores all scales on a few rows of each task, drops those that a paired comparison shows to be behind the
    leader, continues with twice the rows, and so on; the scales left at the end have been scored on every row. Scales
    whose outputs do not differ are never dropped for each other, so that ties are broken as on the full grid.

    Args:
        race: otherwise every scale is scored on every row.
        seed: of the order in which rows are looked at.

    Raises:
        TpvError: no tasks, no scales or a repeated one, an empty split; what `tpv.evaluate` raises.
    """
    tried = tuple(float(scale) for scale in scales)
    if not tried or len(set(tried)) < len(tried) or not all(map(math.isfinite, tried)):
        raise TpvError("scales to search", expected="at least one, finite, none twice", got=list(scales))
    if not tasks:
        raise TpvError("tasks to search a scale for", expected="at least one", got="none")
    prompts = [vector.apply(init, scale) for scale in tried]
    if any(not task.labels for task in tasks):  # text takes a whole grid: there is nothing cheaper than generating it
        found = score_grid(backbone, tasks, prompts, tried, split, max_input_length=max_input_length)
        most = max(len(task.examples(split)) for task in tasks)
        return ScaleSearch(found.scale, tried, found.exact_match, (most,) * len(tried))
    data = []
    for number, task in enumerate(tasks):
        rows = list(task.examples(split))
        Random(f"race {seed} {number}").shuffle(rows)
        sources = encode_examples(backbone, rows, max_input_length, f"task {task.name!r} ({split})")
        data.append((sources, np.array([row.label for row in rows]), label_tokens(backbone, task)))
    most = max(len(gold) for _, gold, _ in data)
    hits: list[list[NDArray[np.bool_]]] = [[np.empty(0, dtype=bool) for _ in data] for _ in tried]
    left = list(range(len(tried)))
    seen, end = 0, FIRST_ROWS if race else most
    while seen < most:
        end = most if len(left) == 1 or 2 * end > most else end
        for number, (sources, gold, labels) in enumerate(data):
            part = slice(min(seen, len(gold)), min(end, len(gold)))
            said = greedy_labels(backbone, [prompts[i] for i in left], sources[part], labels)
            for place, i in enumerate(left):
                hits[i][number] = np.concatenate([hits[i][number], said[place] == gold[part]])
        seen, end = end, 2 * end
        if seen < most:
            left = _still_in(hits, left, [len(gold) for _, gold, _ in data])
    means = [float(np.mean([part.mean() for part in parts])) for parts in hits]
    best = max(left, key=lambda i: (means[i], -tried[i]))
    return ScaleSearch(tried[best], tried, tuple(means), tuple(max(map(len, parts)) for parts in hits))


def _still_in(hits: list[list[NDArray[np.bool_]]], left: list[int], sizes: list[int]) -> list[int]:
    """The scales whose distance to the leader could be chance, given the number of rows left.

    The lag is a mean over tasks of paired differences; its variance that of a sample without replacement from
    `sizes` rows. A pair of rows more that speaks against the lag keeps a small sample from seeming certain.
    """
    means = {i: float(np.mean([part.mean() for part in hits[i]])) for i in left}
    leader = max(left, key=lambda i: means[i])
    kept = []
    for i in left:
        variance = 0.0
        for one, two, size in zip(hits[leader], hits[i], sizes, strict=True):
            count = len(one)
            difference = np.concatenate([one.astype(float) - two, [1.0, -1.0]])
            if count < size:
                variance += difference.var() / count * (1 - count / size) / len(sizes) ** 2
        if means[leader] - means[i] <= DEVIATIONS * math.sqrt(variance):
            kept.append(i)
    return kept
