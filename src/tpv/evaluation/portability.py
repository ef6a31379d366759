"""What to expect of a vector before it is used: on initializations it never saw, and beside other vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.score import evaluate
from tpv.models import Backbone
from tpv.prompts import initializers
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.initializers import Initializer
from tpv.tasks import Task

FIRST_SEED = 1_000_000  # far from the seeds that people train from


@dataclass(frozen=True)
class Portability:
    """How a vector does on initializations it was not trained from.

    Attributes:
        norm_ratio: its norm over the mean norm of these; what is small beside an initialization is easily lost on it.
        scores: exact match of init + vector, one per initialization.
        majority: exact match of always saying the most frequent label.
    """

    norm_ratio: float
    scores: tuple[float, ...]
    majority: float


def unseen_inits(
    backbone: Backbone, num_tokens: int, count: int, init: str | Initializer = "vocabulary"
) -> list[SoftPrompt]:
    """Initializations that nothing was trained from, drawn by the initializer that a vector was trained under."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise TpvError("number of initializations", expected="at least 1", got=count)
    return [SoftPrompt.sample(backbone, num_tokens, FIRST_SEED + i, init) for i in range(count)]


def trained_under(vectors: Sequence[TaskPromptVector]) -> Initializer:
    """The initializer that vectors record, so that they are scored on the distribution they were trained on.

    `vocabulary` with its default limit where they record none, or several.
    """
    found = {
        (part.training.starts, json.dumps(part.training.parameters, sort_keys=True))
        for vector in vectors
        for part in vector.components
        if part.training is not None and part.training.starts not in ("", "given")
    }
    if len(found) != 1:
        return initializers.make("vocabulary")
    ((name, parameters),) = found
    return initializers.make(name, **(json.loads(parameters) or {}))


def portability(
    backbone: Backbone,
    vector: TaskPromptVector,
    task: Task,
    *,
    inits: int = 5,
    split: str = "validation",
    max_input_length: int = MAX_INPUT_LENGTH,
) -> Portability:
    """Score a vector on a task from initializations it never saw.

    Raises:
        TpvError: a vector of another model, an empty split, fewer than 1 initialization.
    """
    begins = unseen_inits(backbone, vector.num_tokens, inits, trained_under([vector]))
    scores = evaluate(backbone, task, [init + vector for init in begins], split, max_input_length=max_input_length)
    norm = sum(init.norm() for init in begins) / inits
    return Portability(vector.norm() / norm, tuple(score.exact_match for score in scores), scores[0].majority)


def interference(
    backbone: Backbone,
    vectors: Sequence[TaskPromptVector],
    tasks: Sequence[Task],
    *,
    inits: int = 5,
    split: str = "validation",
    max_input_length: int = MAX_INPUT_LENGTH,
) -> NDArray[np.float64]:
    """What vectors do to each other: mean exact match of task i under init + vector i + vector j, [N, N].

    The diagonal is task i under its own vector alone. Initializations are those of `portability`.

    Raises:
        TpvError: as many tasks as vectors are expected; what `portability` raises.
    """
    if len(vectors) != len(tasks) or not vectors:
        raise TpvError("tasks of the vectors", expected="one a vector, at least one", got=f"{len(tasks)} tasks")
    begins = unseen_inits(backbone, vectors[0].num_tokens, inits, trained_under(vectors))
    matrix = np.empty((len(vectors), len(vectors)))
    for i, (own, task) in enumerate(zip(vectors, tasks, strict=True)):
        sums = [own if j == i else own + other for j, other in enumerate(vectors)]
        bank = [init + total for total in sums for init in begins]
        scores = evaluate(backbone, task, bank, split, max_input_length=max_input_length)
        matrix[i] = np.array([score.exact_match for score in scores]).reshape(len(sums), inits).mean(axis=1)
    return matrix
