"""What a method learns from source tasks before it meets a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import Entry, register
from tpv.studies.jobs.base import Job, Output, Sizes, Work, training_work
from tpv.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from tpv.methods.sources import SourceMethod, TrainedSource
    from tpv.progress import Callback
    from tpv.studies.jobs.train import Train
    from tpv.studies.lab import Lab

FILE = "prepared.safetensors"


@register.job("prepare", order=8)
@dataclass(frozen=True)
class Prepare(Job):
    """The first stage of a method that learns from sources (`tpv.methods.sources`), which all targets share.

    Attributes:
        sources: the sources' prompts.
        parameters: of the method, by name, all of them.
        recipe: how the sources' prompts were trained; the method says what of it the stage takes.
        seed: of what the stage draws.
    """

    kind: ClassVar[str] = "prepare"
    title: ClassVar[str] = "preparations on the sources"
    doing: ClassVar[str] = "preparing"
    sources: tuple[Train, ...]
    method: str
    parameters: tuple[tuple[str, Any], ...]
    recipe: Recipe
    seed: int

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(task for source in self.sources for task in source.data.tasks)

    def uses(self) -> list[Entry[Any]]:
        return [*super().uses(), register.method[self.method]]

    def work(self, sizes: Sizes) -> Work:
        recipe = method_of(self.method, self.parameters).source_recipe(self.recipe)
        each = [training_work(recipe, sizes[task]["train"], sizes[task]["validation"]) for task in self.reads]
        return sum(each, Work())

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        return [job._prepare(lab, callback, checkpoint) for job in jobs]

    def _prepare(self, lab: Lab, callback: Callback, checkpoint: Path | None) -> Output:
        method = method_of(self.method, self.parameters)
        found = method.prepare(
            lab.backbone,
            sources_of(lab, self.sources),
            method.source_recipe(self.recipe),
            seed=self.seed,
            callback=callback,
            checkpoint=checkpoint,
        )
        return Output(partial(_save, found))

    def state(self, lab: Lab) -> dict[str, Tensor]:
        """What the stage gave, from the artifact."""
        from safetensors.torch import load_file

        return load_file(lab.read(self, FILE))


def method_of(name: str, parameters: tuple[tuple[str, Any], ...]) -> SourceMethod:
    """A registered method with these parameters."""
    made: SourceMethod = register.method[name].thing(**dict(parameters))
    return made


def sources_of(lab: Lab, trained: Sequence[Train]) -> list[TrainedSource]:
    """Source tasks with their prompts, from the artifacts."""
    from tpv.methods.sources import TrainedSource

    return [TrainedSource(lab.data(one.data), lab.prompt(one.init), lab.prompt(one)) for one in trained]


def _save(state: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save

    (folder / FILE).write_bytes(save({name: value.contiguous() for name, value in state.items()}))
