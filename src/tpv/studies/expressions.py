"""Prompts and vectors as plain data: what there is to calculate is written down before anything is loaded.

A prompt is an `Initial` one, `Zeros`, the outcome of a training (a job `Train`), or a `Blend` (a prompt plus a sum of
scale * vector). A vector is that of a tuned prompt (`Train`), a `Member` of a set that was trained as vectors, or a
`Merged` or a `Stored` one. Each is decided by its fields and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tpv.errors import TpvError
from tpv.registry import Entry, register

if TYPE_CHECKING:
    from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
    from tpv.studies.jobs.base import Job
    from tpv.studies.jobs.vectors import Vectors
    from tpv.studies.lab import Lab


class Expression:
    """What jobs are made of, and jobs themselves.

    Attributes:
        is_job: whether it leaves an artifact behind.
        kept: whether a lab keeps its prompt in memory.
    """

    is_job: ClassVar[bool] = False
    kept: ClassVar[bool] = True

    def uses(self) -> list[Entry[Any]]:
        """Registered things that decide its value."""
        return []


class PromptExpression(Protocol):
    """What stands for a prompt."""

    def prompt(self, lab: Lab) -> SoftPrompt:
        """The prompt, [P, H]."""
        ...


class VectorExpression(Protocol):
    """What stands for a vector, of one task or of several."""

    @property
    def tasks_of(self) -> tuple[str, ...]:
        """The tasks that it is a vector of."""
        ...

    @property
    def vector_seed(self) -> int:
        """Seed of the initialization that it was trained from."""
        ...

    def vector(self, lab: Lab) -> TaskPromptVector:
        """The vector, [P, H]."""
        ...


class TrainedVector(VectorExpression, Protocol):
    """What stands for a vector that a job trains."""

    @property
    def kept_in(self) -> tuple[Job, str, str]:
        """That job, the file of its artifact that says what went into the vector, and what this file holds.

        A `TaskPromptVector`, or a `SoftPrompt` that its initialization is still to be subtracted from.
        """
        ...


@dataclass(frozen=True)
class Data(Expression):
    """Rows to train on: a task, or several concatenated; a few-shot sample if `shots` is given."""

    tasks: tuple[str, ...]
    shots: int | None = None
    sample_seed: int = 0
    validation_rows: int | None = None


@dataclass(frozen=True)
class Initial(Expression):
    """An untrained prompt, drawn by the study's initializer."""

    seed: int

    def prompt(self, lab: Lab) -> SoftPrompt:
        from tpv.prompts.algebra import SoftPrompt

        return SoftPrompt.sample(lab.backbone, lab.config.prompt.tokens, self.seed, lab.initializer)


@dataclass(frozen=True)
class Zeros(Expression):
    """The prompt of zeros: what vectors of a mode with a common home are added to."""

    def prompt(self, lab: Lab) -> SoftPrompt:
        from tpv.prompts.algebra import SoftPrompt

        return SoftPrompt.sample(lab.backbone, lab.config.prompt.tokens, init="zero")


@dataclass(frozen=True)
class Member(Expression):
    """One task's vector of a set that was trained together."""

    of: Vectors
    task: str

    @property
    def tasks_of(self) -> tuple[str, ...]:
        return (self.task,)

    @property
    def vector_seed(self) -> int:
        return self.of.seed

    @property
    def kept_in(self) -> tuple[Job, str, str]:
        return self.of, self.of.file_of(self.task), "TaskPromptVector"

    def vector(self, lab: Lab) -> TaskPromptVector:
        return self.of.member(lab, self.task)


@dataclass(frozen=True)
class Stored(Expression):
    """A vector of the config's library (`transfer.library`), known by its digest."""

    name: str
    digest: str

    @property
    def tasks_of(self) -> tuple[str, ...]:
        return (self.name,)

    def vector(self, lab: Lab) -> TaskPromptVector:
        vector = lab.library[self.name]
        if vector.digest != self.digest:
            raise TpvError(
                f"vector {self.name!r} of the library",
                expected="the one with which the run began",
                got="another",
                fix="put it back, or choose another --out",
            )
        return vector


@dataclass(frozen=True)
class Merged(Expression):
    """Vectors merged by a registered method.

    Attributes:
        parameters: of the method, by name, all of them.
    """

    vectors: tuple[Any, ...]
    method: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def tasks_of(self) -> tuple[str, ...]:
        return tuple(task for vector in self.vectors for task in vector.tasks_of)

    @property
    def vector_seed(self) -> int:
        seed: int = self.vectors[0].vector_seed
        return seed

    def vector(self, lab: Lab) -> TaskPromptVector:
        from tpv.merging import merge

        return merge([vector.vector(lab) for vector in self.vectors], self.method, **dict(self.parameters))

    def uses(self) -> list[Entry[Any]]:
        return [register.merge[self.method]]


@dataclass(frozen=True)
class Blend(Expression):
    """`base + sum of scale * vector` (eq. 6, 7)."""

    kept: ClassVar[bool] = False  # sums are many, and quickly made
    base: Any
    terms: tuple[tuple[float, Any], ...]

    def prompt(self, lab: Lab) -> SoftPrompt:
        result: SoftPrompt = lab.prompt(self.base)
        for scale, vector in self.terms:
            result = lab.vector(vector).apply(result, scale)
        return result


def blend(base: Any, terms: list[tuple[float, Any]]) -> Any:
    """The sum, equal vectors put together and zeros left out, so that equal prompts are equal jobs."""
    total: dict[Any, float] = {}
    for scale, vector in terms:
        total[vector] = total.get(vector, 0.0) + scale
    left = tuple((scale, vector) for vector, scale in total.items() if scale != 0.0)
    return Blend(base, left) if left else base


def inside(value: Any) -> Iterator[Any]:
    """The expressions and jobs directly inside a value."""
    if isinstance(value, tuple):
        for item in value:
            yield from inside(item)
    elif isinstance(value, Expression):
        yield value


def jobs_in(value: Any) -> Iterator[Job]:
    """The jobs that a value reads, none of their own needs."""
    for found in inside(value):
        if found.is_job:
            yield found
        else:
            for field in fields(found):
                yield from jobs_in(getattr(found, field.name))


def entries_in(value: Any) -> Iterator[Entry[Any]]:
    """The registered things that expressions in a value use, those of jobs left to the jobs themselves."""
    for found in inside(value):
        if not found.is_job:
            yield from found.uses()
            for field in fields(found):
                yield from entries_in(getattr(found, field.name))
