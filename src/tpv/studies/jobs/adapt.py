"""Tune a target's prompt by a registered method, with or without source tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import Entry, register
from tpv.studies.expressions import Data, Initial
from tpv.studies.jobs.base import Job, Output, Sizes, Work, at_most, training_work
from tpv.studies.jobs.prepare import Prepare, sources_of
from tpv.training.recipe import Recipe

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.prompts.algebra import SoftPrompt
    from tpv.studies.jobs.train import Train
    from tpv.studies.lab import Lab
    from tpv.studies.settings import Config
    from tpv.training.fit import Trainee

FILE = "prompt.safetensors"


@register.job("adapt", order=9)
@dataclass(frozen=True)
class Adapt(Job):
    """A prompt for a target by a method of kind `prompt` or `sources`; untrained without a recipe.

    Attributes:
        parameters: of the method, by name, all of them.
        sources: the sources' prompts; none for a method of kind `prompt`.
        prepared: the method's stage on the sources, where it has one.
        own: the target's prompt tuned first, where the method asks for it.
    """

    kind: ClassVar[str] = "adapt"
    title: ClassVar[str] = "prompts to adapt"
    doing: ClassVar[str] = "adapting"
    data: Data
    init: Initial
    method: str
    parameters: tuple[tuple[str, Any], ...]
    sources: tuple[Train, ...]
    prepared: Prepare | None
    own: Train | None
    recipe: Recipe | None

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.data.tasks, *(task for source in self.sources for task in source.data.tasks))

    def uses(self) -> list[Entry[Any]]:
        return [*super().uses(), register.method[self.method]]

    def bank_key(self) -> object:
        return (self.method, self.parameters, self.recipe)

    @classmethod
    def bank_size(cls, config: Config) -> int:
        return config.run.bank

    def work(self, sizes: Sizes) -> Work:
        if self.recipe is None:
            return Work()
        mine = sizes[self.data.tasks[0]]
        validation = at_most(mine["validation"], self.data.validation_rows)
        return training_work(self.recipe, self.data.shots or mine["train"], validation)

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        from tpv.training.fit import fit_trainees

        inits, recipe = [lab.prompt(job.init) for job in jobs], jobs[0].recipe
        tasks, trainees = [lab.data(job.data) for job in jobs], [job._begin(lab) for job in jobs]
        if recipe is None:
            made = [
                init.tuned_to(trainee.prompt().detach(), task.name)
                for init, trainee, task in zip(inits, trainees, tasks, strict=True)
            ]
        else:
            made = fit_trainees(
                lab.backbone,
                tasks,
                inits,
                trainees,
                recipe,
                seeds=[recipe.seed] * len(jobs),
                about=json.dumps([[job.method, job.parameters, job._digests(lab)] for job in jobs]),
                targets=lab.targets,
                callback=callback,
                checkpoint=checkpoint,
            )
        trained = [sum(one.numel() for one in trainee.parameters) for trainee in trainees]
        return [
            Output(partial(_save, prompt), {"trained": count if recipe else 0})
            for prompt, count in zip(made, trained, strict=True)
        ]

    def _digests(self, lab: Lab) -> list[str]:
        """Of the prompts that it begins from."""
        return [lab.prompt(one).digest for one in (*self.sources, *([self.own] if self.own else []))]

    def _begin(self, lab: Lab) -> Trainee:
        """What trains."""
        from tpv.methods.sources import Target

        method = register.method[self.method].thing(**dict(self.parameters))
        init, task = lab.prompt(self.init), lab.data(self.data)
        recipe = self.recipe or Recipe()
        trainee: Trainee
        if not self.sources:
            trainee = method.begin(lab.backbone, task, init, recipe)
        else:
            prepared = self.prepared.state(lab) if self.prepared else {}
            target = Target(task, init, lab.prompt(self.own) if self.own else None)
            trainee = method.begin(lab.backbone, target, sources_of(lab, self.sources), prepared, recipe)
        return trainee

    def load(self, lab: Lab) -> None:
        lab.data(self.data)
        lab.prompt(self.init)
        for source in self.sources:
            lab.prompt(source)

    def prompt(self, lab: Lab) -> SoftPrompt:
        """The prompt, from its artifact."""
        from tpv.prompts.algebra import SoftPrompt

        return SoftPrompt.load(lab.read(self, FILE))


def _save(prompt: SoftPrompt, folder: Path) -> None:
    prompt.save(folder / FILE)
