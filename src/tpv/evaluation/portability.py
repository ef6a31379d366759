"""What to expect of a vector before it is used: on starts it never saw, and beside other vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tpv.errors import TpvError
from tpv.evaluation.score import evaluate
from tpv.models import Backbone
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.tasks import Task
from tpv.training.recipe import MAX_INPUT_LENGTH

FIRST_SEED = 1_000_000  # of the starts: far from those that people train from


@dataclass(frozen=True)
class Portability:
    """How a vector does on starts it was not trained from.

    Attributes:
        norm_ratio: its norm over the mean norm of these starts; what is small beside a start is easily lost on it.
        scores: exact match of start + vector, one a start.
        majority: exact match of always saying the commonest label.
    """

    norm_ratio: float
    scores: tuple[float, ...]
    majority: float


def unseen_starts(backbone: Backbone, num_tokens: int, count: int) -> list[SoftPrompt]:
    """Vocabulary starts that nothing was trained from."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise TpvError("number of starts", expected="at least 1", got=count)
    return [SoftPrompt.sample(backbone, num_tokens, FIRST_SEED + i) for i in range(count)]


def portability(
    backbone: Backbone,
    vector: TaskPromptVector,
    task: Task,
    *,
    starts: int = 5,
    split: str = "validation",
    max_input_length: int = MAX_INPUT_LENGTH,
) -> Portability:
    """Score a vector on a task from starts it never saw.

    Raises:
        TpvError: a vector of another model, an empty split, fewer than 1 start.
    """
    begins = unseen_starts(backbone, vector.num_tokens, starts)
    scores = evaluate(backbone, task, [start + vector for start in begins], split, max_input_length=max_input_length)
    norm = sum(start.norm() for start in begins) / starts
    return Portability(vector.norm() / norm, tuple(score.exact_match for score in scores), scores[0].majority)


def interference(
    backbone: Backbone,
    vectors: Sequence[TaskPromptVector],
    tasks: Sequence[Task],
    *,
    starts: int = 5,
    split: str = "validation",
    max_input_length: int = MAX_INPUT_LENGTH,
) -> NDArray[np.float64]:
    """What vectors do to each other: mean exact match of task i under start + vector i + vector j, [N, N].

    The diagonal is task i under its own vector alone. Starts are those of `portability`.

    Raises:
        TpvError: as many tasks as vectors are expected; what `portability` raises.
    """
    if len(vectors) != len(tasks) or not vectors:
        raise TpvError("tasks of the vectors", expected="one a vector, at least one", got=f"{len(tasks)} tasks")
    begins = unseen_starts(backbone, vectors[0].num_tokens, starts)
    matrix = np.empty((len(vectors), len(vectors)))
    for i, (own, task) in enumerate(zip(vectors, tasks, strict=True)):
        sums = [own if j == i else own + other for j, other in enumerate(vectors)]
        bank = [start + total for total in sums for start in begins]
        scores = evaluate(backbone, task, bank, split, max_input_length=max_input_length)
        matrix[i] = np.array([score.exact_match for score in scores]).reshape(len(sums), starts).mean(axis=1)
    return matrix
