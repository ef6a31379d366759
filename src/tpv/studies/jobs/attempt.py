"""Train an ATTEMPT model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import register
from tpv.studies.expressions import Data
from tpv.studies.jobs.base import Job, Output, Sizes, Work, at_most, training_work
from tpv.training.recipe import Recipe

if TYPE_CHECKING:
    from tpv.evaluation.bank import PromptReader
    from tpv.methods.attempt import Attempt
    from tpv.progress import Callback
    from tpv.studies.jobs.train import Train
    from tpv.studies.lab import Lab
    from tpv.studies.settings import Config

FILE = "state.safetensors"


@register.job("attempt", order=3)
@dataclass(frozen=True)
class Attend(Job):
    """An ATTEMPT model over source prompts, trained on several targets together; untrained without a recipe."""

    kind: ClassVar[str] = "attempt"
    title: ClassVar[str] = "ATTEMPT models"
    doing: ClassVar[str] = "ATTEMPT"
    targets: tuple[Data, ...]
    sources: tuple[Train, ...]
    recipe: Recipe | None
    seed: int
    temperature: float

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(task for data in self.targets for task in data.tasks)

    def bank_key(self) -> object:
        return self.recipe

    @classmethod
    def bank_size(cls, config: Config) -> int:
        return config.run.bank

    def work(self, sizes: Sizes) -> Work:
        if self.recipe is None:
            return Work()
        train = sum(data.shots or sizes[data.tasks[0]]["train"] for data in self.targets)
        validation = sum(at_most(sizes[data.tasks[0]]["validation"], data.validation_rows) for data in self.targets)
        return training_work(self.recipe, train, validation)

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        from tpv.methods.attempt import fit_attempt

        models = [job.untrained(lab) for job in jobs]
        recipe = jobs[0].recipe
        if recipe is not None:
            fit_attempt(
                lab.backbone,
                [[lab.data(data) for data in job.targets] for job in jobs],
                models,
                recipe,
                seeds=[recipe.seed] * len(jobs),
                targets=lab.targets,
                callback=callback,
                checkpoint=checkpoint,
            )
        counts = [sum(one.numel() for one in model.parameters) if recipe else 0 for model in models]
        return [
            Output(partial(_save, model.state()), {"trained": count})
            for model, count in zip(models, counts, strict=True)
        ]

    def load(self, lab: Lab) -> None:
        for data in self.targets:
            lab.data(data)
        for source in self.sources:
            lab.prompt(source)

    def untrained(self, lab: Lab) -> Attempt:
        """The model before training."""
        from tpv.methods.attempt import Attempt

        names = [data.tasks[0] for data in self.targets]
        sources = [lab.prompt(source) for source in self.sources]
        return Attempt(lab.backbone, sources, names, seed=self.seed, temperature=self.temperature or None)

    def reader(self, lab: Lab, task: str) -> PromptReader:
        """What gives each row of a target task its prompt, from the artifact."""
        from safetensors.torch import load_file

        model = self.untrained(lab).restore(load_file(lab.read(self, FILE)))
        return model.reader([data.tasks[0] for data in self.targets].index(task))


def _save(state: dict[str, Any], folder: Path) -> None:
    from safetensors.torch import save

    (folder / FILE).write_bytes(save(state))
