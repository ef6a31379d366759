"""Train the vectors of several tasks together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import Entry, register
from tpv.studies.jobs.base import Job, Output, Sizes, Work, training_work
from tpv.training.recipe import Recipe

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.prompts.algebra import TaskPromptVector
    from tpv.studies.lab import Lab


@register.job("vectors", order=2)
@dataclass(frozen=True)
class Vectors(Job):
    """Vectors of several tasks trained as vectors, in one bank: see `tpv.fit_vectors`.

    Attributes:
        method: a registered method of kind `vectors`: `portable`, `composable`, `fixed` or a plugin's.
        seed: of what the training draws.
        parameters: of the method, by name.
    """

    kind: ClassVar[str] = "vectors"
    title: ClassVar[str] = "sets of vectors to train"
    doing: ClassVar[str] = "training vectors"
    tasks: tuple[str, ...]
    method: str
    seed: int
    recipe: Recipe
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return self.tasks

    def uses(self) -> list[Entry[Any]]:
        return [*super().uses(), register.method[self.method]]

    def work(self, sizes: Sizes) -> Work:
        each = [training_work(self.recipe, sizes[task]["train"], sizes[task]["validation"]) for task in self.tasks]
        return sum(each, Work())

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        return [job._train(lab, callback, checkpoint) for job in jobs]

    def _train(self, lab: Lab, callback: Callback, checkpoint: Path | None) -> Output:
        entry = register.method[self.method]
        vectors: list[TaskPromptVector] = entry.thing(**entry.checked(dict(self.parameters))).fit(
            lab.backbone,
            [lab.task(task) for task in self.tasks],
            self.recipe,
            num_tokens=lab.config.prompt.tokens,
            init=lab.initializer,
            seed=self.seed,
            callback=callback,
            checkpoint=checkpoint,
        )

        def save(folder: Path) -> None:
            for i, vector in enumerate(vectors):
                vector.save(folder / _file(i))

        return Output(save)

    def member(self, lab: Lab, task: str) -> TaskPromptVector:
        """One task's vector, from the artifact."""
        from tpv.prompts.algebra import TaskPromptVector

        return TaskPromptVector.load(lab.read(self, self.file_of(task)))

    def file_of(self, task: str) -> str:
        """The file of the artifact with one task's vector."""
        return _file(self.tasks.index(task))


def _file(place: int) -> str:
    return f"vector-{place}.safetensors"
