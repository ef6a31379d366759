"""Tune a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import Entry, register
from tpv.studies.expressions import Data
from tpv.studies.jobs.base import Job, Output, Sizes, Work, at_most, training_work
from tpv.training.recipe import Recipe

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
    from tpv.studies.lab import Lab
    from tpv.studies.settings import Config

FILE = "prompt.safetensors"


@register.job("train", order=1)
@dataclass(frozen=True)
class Train(Job):
    """Tune a prompt; its vector is the tuned prompt minus its initialization (eq. 5)."""

    kind: ClassVar[str] = "train"
    title: ClassVar[str] = "prompts to tune"
    doing: ClassVar[str] = "tuning"
    data: Data
    init: Any
    recipe: Recipe
    method: str = "prompt_tuning"

    @property
    def reads(self) -> tuple[str, ...]:
        return self.data.tasks

    @property
    def tasks_of(self) -> tuple[str, ...]:
        """The task that its vector is of."""
        return self.data.tasks[:1]

    @property
    def vector_seed(self) -> int:
        """Seed of the initialization that it was trained from."""
        seed: int = self.init.seed
        return seed

    def uses(self) -> list[Entry[Any]]:
        used = super().uses()
        return used if self.method == "prompt_tuning" else [*used, register.method[self.method]]

    def bank_key(self) -> object:
        return (self.recipe, self.method)

    @classmethod
    def bank_size(cls, config: Config) -> int:
        return config.run.bank

    def work(self, sizes: Sizes) -> Work:
        mine = [sizes[task] for task in self.data.tasks]
        validation = at_most(sum(size["validation"] for size in mine), self.data.validation_rows)
        return training_work(self.recipe, self.data.shots or sum(size["train"] for size in mine), validation)

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        from tpv.training.fit import fit

        tuned = fit(
            lab.backbone,
            [lab.data(job.data) for job in jobs],
            [lab.prompt(job.init) for job in jobs],
            jobs[0].recipe,
            method=jobs[0].method,
            targets=lab.targets,
            callback=callback,
            checkpoint=checkpoint,
        )
        whole = jobs[0].method in ("prompt_tuning", "ascent")  # of others what trains is not the prompt's values
        return [Output(partial(_save, one), {"trained": one.tensor.numel()} if whole else {}) for one in tuned]

    def load(self, lab: Lab) -> None:
        lab.data(self.data)
        lab.prompt(self.init)

    @property
    def kept_in(self) -> tuple[Job, str, str]:
        """See `TrainedVector`."""
        return self, FILE, "SoftPrompt"

    def prompt(self, lab: Lab) -> SoftPrompt:
        """The tuned prompt, from its artifact."""
        from tpv.prompts.algebra import SoftPrompt

        return SoftPrompt.load(lab.read(self, FILE))

    def vector(self, lab: Lab) -> TaskPromptVector:
        """Tuned minus initialization."""
        return lab.prompt(self) - lab.prompt(self.init)


def _save(prompt: SoftPrompt, folder: Path) -> None:
    prompt.save(folder / FILE)
