"""Methods that start a new task's prompt from the prompts of source tasks.

Such a method has stages. `prepare` learns from the sources what all targets share, and gives named tensors. The
target's own prompt may be tuned first (`first_recipe`). `begin` says what trains for one target then. The result is a
plain `SoftPrompt`, tuned from the initialization that it was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from tpv.errors import TpvError
from tpv.evaluation.bank import check_bank, paired
from tpv.models import Backbone
from tpv.progress import Callback, silent
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.matrix import PromptMatrix
from tpv.tasks import Task
from tpv.training.fit import Trainee, fit, fit_trainees
from tpv.training.recipe import Recipe
from tpv.training.run import Targets

Prepared = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class TrainedSource:
    """A source task, the prompt that was tuned on it, and the initialization of that prompt."""

    task: Task
    init: SoftPrompt
    prompt: SoftPrompt

    @property
    def vector(self) -> TaskPromptVector:
        """Tuned minus initialization (eq. 5)."""
        return self.prompt - self.init


@dataclass(frozen=True, eq=False)
class Target:
    """A new task, the initialization of its prompt, and that prompt tuned on the task first, where a method asks."""

    task: Task
    init: SoftPrompt
    own: SoftPrompt | None = None


class SourceMethod(Protocol):
    """A method that learns from source tasks: a frozen dataclass, its fields the parameters.

    Subclass it to have the defaults: no first stage, and no prompt of the target's own first.

    Attributes:
        kind: `sources`.
        prepares: whether it has a first stage that all targets share, on the rows of the sources.
        zero_shot: whether its prompt is worth scoring before it was trained on the target.
    """

    kind: ClassVar[str] = "sources"
    prepares: ClassVar[bool] = False
    zero_shot: ClassVar[bool] = False

    def source_recipe(self, recipe: Recipe) -> Recipe:
        """How the first stage trains, from how the sources' own prompts were trained; by default as they were."""
        return recipe

    def prepare(
        self,
        backbone: Backbone,
        sources: Sequence[TrainedSource],
        recipe: Recipe,
        *,
        seed: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Tensor]:
        """What all targets share, as named tensors.

        Args:
            recipe: what `source_recipe` gave.
            seed: seed of its random draws. The order of the rows depends on the recipe's seed instead.
        """
        return {}

    def first_recipe(self, recipe: Recipe) -> Recipe | None:
        """How a target's own prompt is tuned before the method begins, from how it trains then; None: it is not."""
        return None

    def begin(
        self, backbone: Backbone, target: Target, sources: Sequence[TrainedSource], prepared: Prepared, recipe: Recipe
    ) -> Trainee:
        """What trains for one target, from its initialization."""
        ...


def adapt(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    inits: SoftPrompt | Sequence[SoftPrompt],
    sources: Sequence[TrainedSource],
    method: SourceMethod,
    recipe: Recipe | None = None,
    *,
    source_recipe: Recipe | None = None,
    prepared: Prepared | None = None,
    seed: int = 0,
    targets: Targets | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> list[SoftPrompt]:
    """Tune prompts for new tasks with a method that starts from source tasks, all in one bank.

    Args:
        tasks: one target for all initializations, or one for each.
        inits: initializations of the prompts.
        sources: the source tasks with their tuned prompts.
        recipe: how the targets train.
        source_recipe: how the first stage trains, where the method has one; by default as the targets do.
        prepared: what the first stage gave before, so that it is not run again.
        seed: seed of the first stage's random draws.
        targets, callback, checkpoint: see `tpv.fit`; the callback hears of the last stage.

    Returns:
        The tuned prompts, in the order of `inits`.

    Raises:
        TpvError: no sources, prompts of another model or shape; what `tpv.fit` raises.
    """
    recipe = recipe or Recipe()
    init_of = [inits] if isinstance(inits, PromptMatrix) else list(inits)
    check_sources(backbone, sources, init_of)
    if prepared is None:
        stage = method.source_recipe(source_recipe or recipe)
        prepared = method.prepare(backbone, sources, stage, seed=seed) if method.prepares else {}
    task_of = paired(tasks, len(init_of))
    first = method.first_recipe(recipe)
    owns: Sequence[SoftPrompt | None] = [None] * len(init_of)
    if first is not None:
        owns = fit(backbone, task_of, init_of, first, targets=targets, callback=silent)
    trainees = [
        method.begin(backbone, Target(task, init, own), sources, prepared, recipe)
        for task, init, own in zip(task_of, init_of, owns, strict=True)
    ]
    return fit_trainees(
        backbone,
        task_of,
        init_of,
        trainees,
        recipe,
        seeds=[recipe.seed] * len(init_of),
        about=about(method, [sources]),
        targets=targets,
        callback=callback,
        checkpoint=checkpoint,
    )


def check_sources(backbone: Backbone, sources: Sequence[TrainedSource], inits: Sequence[SoftPrompt]) -> None:
    """Refuse no sources, one task twice, or prompts that do not fit the model or each other.

    Raises:
        TpvError: with what does not fit.
    """
    names = [source.task.name for source in sources]
    if not names or len(set(names)) < len(names):
        raise TpvError("source tasks", expected="at least one, and none twice", got=", ".join(names) or "none")
    check_bank(backbone, [*inits, *(prompt for source in sources for prompt in (source.init, source.prompt))])


def about(method: object, sources: Sequence[Sequence[TrainedSource]]) -> str:
    """What decides a training beside its recipe, for its checkpoint to be known by."""
    digests = [[source.prompt.digest for source in each] for each in sources]
    return json.dumps([type(method).__name__, repr(method), digests])


def short(recipe: Recipe, steps: int) -> Recipe:
    """The first so many steps of a training: nothing is validated, and the learning rate does not decay."""
    return replace(recipe, steps=steps, epochs=None, select="last", schedule="constant")
