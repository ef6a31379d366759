"""Jobs: what there is to calculate, as plain data. A job's value is decided by its fields and by nothing else.

Prompts are expressions over starts and trainings: `Start`, `Zero`, `Train`, or a `Blend` (start + sum of scale *
vector). A vector is that of a tuned prompt (`Train`), or one of a set that was trained as vectors (`Member`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from tpv.training.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """Rows to train on: a task, or several concatenated; a few-shot sample if `shots` is given."""

    tasks: tuple[str, ...]
    shots: int | None = None
    sample_seed: int = 0
    validation_rows: int | None = None


@dataclass(frozen=True)
class Start:
    """An untrained prompt."""

    seed: int


@dataclass(frozen=True)
class Zero:
    """The prompt of zeros: where vectors of mode `fixed` are at home."""


@dataclass(frozen=True)
class Train:
    """Tune a prompt; its vector is the tuned prompt minus its start (eq. 5)."""

    kind: ClassVar[str] = "train"
    version: ClassVar[int] = 1
    data: Data
    start: Prompt
    recipe: Recipe


@dataclass(frozen=True)
class Vectors:
    """Vectors of several tasks trained as vectors, in one bank: see `tpv.fit_vectors`.

    `mode`: `portable`, `composable` (which is portable too), or `fixed`: from a start of zeros, and alone.
    """

    kind: ClassVar[str] = "vectors"
    version: ClassVar[int] = 1
    tasks: tuple[str, ...]
    mode: str
    seed: int
    recipe: Recipe
    scales: tuple[float, float]
    draws: int | None


@dataclass(frozen=True)
class Member:
    """One task's vector of such a training."""

    of: Vectors
    task: str


Vector = Train | Member


@dataclass(frozen=True)
class Blend:
    """`start + sum of scale * vector` (eq. 6, 7)."""

    start: Start | Zero | Train
    terms: tuple[tuple[float, Vector], ...]


Prompt = Start | Zero | Train | Blend


def task_of(vector: Vector) -> str:
    """The task that a vector is of."""
    return vector.task if isinstance(vector, Member) else vector.data.tasks[0]


@dataclass(frozen=True)
class Attend:
    """An ATTEMPT model over source prompts, trained on several targets together; untrained without a recipe."""

    kind: ClassVar[str] = "attempt"
    version: ClassVar[int] = 1
    targets: tuple[Data, ...]
    sources: tuple[Train, ...]
    recipe: Recipe | None
    seed: int
    temperature: float


@dataclass(frozen=True)
class Score:
    """Predictions of a prompt (or of an ATTEMPT model) on a task's test split."""

    kind: ClassVar[str] = "score"
    version: ClassVar[int] = 1
    prompt: Prompt | Attend
    task: str


@dataclass(frozen=True)
class Search:
    """The best scale for a sum of vectors: a grid on all validation splits, then all test splits."""

    kind: ClassVar[str] = "search"
    version: ClassVar[int] = 1
    start: Start
    vectors: tuple[Vector, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Compare:
    """Cosines of every pair of prompts, and of their vectors; norms of both. Or of vectors that have no prompt."""

    kind: ClassVar[str] = "compare"
    version: ClassVar[int] = 2
    prompts: tuple[Vector, ...]


@dataclass(frozen=True)
class Measure:
    """Train alone for a few timed steps: what a step costs, and how many the whole would take."""

    kind: ClassVar[str] = "measure"
    version: ClassVar[int] = 1
    trainings: tuple[Train | Attend, ...]
    steps: int


Job = Train | Vectors | Attend | Score | Search | Compare | Measure
JOBS = (Train, Vectors, Attend, Score, Search, Compare, Measure)
KINDS = {job.kind: job for job in JOBS}


def parts(value: Any) -> Iterator[Job]:
    """The jobs directly inside a value."""
    if isinstance(value, tuple):
        for item in value:
            yield from ([item] if isinstance(item, JOBS) else parts(item))
    elif isinstance(value, JOBS):
        yield value
    elif isinstance(value, Blend):
        yield from parts((value.start, value.terms))
    elif isinstance(value, Member):
        yield value.of


def needs(job: Job) -> tuple[Job, ...]:
    """The jobs whose artifacts a job reads."""
    if isinstance(job, Measure):  # it trains on its own; what its trainings start from has to be there
        return tuple(dict.fromkeys(need for training in job.trainings for need in needs(training)))
    return tuple(dict.fromkeys(part for field in fields(job) for part in parts(getattr(job, field.name))))


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """These jobs and all they need, each once, needs first."""
    done: dict[Job, None] = {}

    def visit(job: Job) -> None:
        if job not in done:
            for need in needs(job):
                visit(need)
            done[job] = None

    for job in jobs:
        visit(job)
    return list(done)


def tasks_of(job: Job) -> tuple[str, ...]:
    """The tasks whose rows a job itself reads."""
    if isinstance(job, Train):
        return job.data.tasks
    if isinstance(job, Vectors):
        return job.tasks
    if isinstance(job, Attend):
        return tuple(task for data in job.targets for task in data.tasks)
    if isinstance(job, Score):
        return (job.task,)
    if isinstance(job, Search):
        return tuple(map(task_of, job.vectors))
    if isinstance(job, Measure):
        return tuple(task for training in job.trainings for task in tasks_of(training))
    return ()
