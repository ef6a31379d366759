"""Prompt tuning (eq. 1), or any other method that trains prompts one by one, for a bank of prompts at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, overload, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.evaluation.bank import PromptReader, SharedPrompt, check_bank, paired
from tpv.models import Backbone, Tokens
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.embeddings import embedding_rms
from tpv.prompts.matrix import PromptMatrix
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.history import history_of
from tpv.training.loop import train
from tpv.training.recipe import Recipe
from tpv.training.run import Run, Targets


class Trainee(Protocol):
    """One prompt in training, as a method sees it.

    Attributes:
        parameters: what the optimizer changes.

    It may have a method `loss`, a `tpv.training.run.Loss`, that takes the place of the label likelihood.
    """

    parameters: Sequence[Parameter]

    def reader(self) -> PromptReader:
        """What gives each training row its prompt."""
        ...

    def prompt(self) -> Tensor:
        """The prompt [P, H] that the parameters stand for now: what validation scores and what is kept."""
        ...


@runtime_checkable
class PromptMethod(Protocol):
    """A training method: a frozen dataclass, its fields the parameters, registered with `@tpv.register.method`.

    Attributes:
        kind: `prompt`, a method that trains prompts one by one. (`vectors` trains those of several tasks together,
            see `tpv.fit_vectors`; `mixture` trains what several tasks share, see `tpv.methods.attempt`.)
    """

    kind: ClassVar[str]

    def begin(self, backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe) -> Trainee:
        """What trains, from this initialization on this task."""
        ...


class Current:
    """A `PromptReader` of the prompt that a trainee's parameters stand for at the moment."""

    def __init__(self, trainee: Trainee, num_tokens: int) -> None:
        self._trainee, self._num_tokens = trainee, num_tokens

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        return SharedPrompt(self._trainee.prompt()).read(sources)


def method_of(method: str | PromptMethod, parameters: Mapping[str, Any] | None) -> PromptMethod:
    """A method that trains prompts, by name or as an instance.

    Raises:
        TpvError: no such method, one that does not train prompts one by one, or parameters that do not fit.
    """
    if isinstance(method, str):
        entry = register.method[method]
        if entry.thing.kind != "prompt":
            names = [other.name for other in register.method if other.thing.kind == "prompt"]
            raise TpvError(
                f"method {method!r} does not train prompts one by one",
                expected=", ".join(names),
                fix="train vectors with tpv.fit_vectors",
            )
        made: PromptMethod = entry.thing(**entry.checked(parameters or {}, f"method {method!r}"))
        return made
    if parameters:
        raise TpvError("parameters of a method that is made already", got=", ".join(parameters))
    if not isinstance(method, PromptMethod):
        raise TpvError("method", expected="the name of a registered method, or one", got=type(method).__name__)
    return method


@overload
def fit(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    inits: SoftPrompt,
    recipe: Recipe | None = ...,
    *,
    method: str | PromptMethod = ...,
    parameters: Mapping[str, Any] | None = ...,
    seeds: Sequence[int] | None = ...,
    targets: Targets | None = ...,
    callback: Callback | None = ...,
    checkpoint: Path | None = ...,
) -> SoftPrompt: ...


@overload
def fit(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    inits: Sequence[SoftPrompt],
    recipe: Recipe | None = ...,
    *,
    method: str | PromptMethod = ...,
    parameters: Mapping[str, Any] | None = ...,
    seeds: Sequence[int] | None = ...,
    targets: Targets | None = ...,
    callback: Callback | None = ...,
    checkpoint: Path | None = ...,
) -> list[SoftPrompt]: ...


def fit(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    inits: SoftPrompt | Sequence[SoftPrompt],
    recipe: Recipe | None = None,
    *,
    method: str | PromptMethod = "prompt_tuning",
    parameters: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    targets: Targets | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> SoftPrompt | list[SoftPrompt]:
    """Tune one prompt, or a bank of prompts together, on a frozen model (eq. 1).

    Args:
        tasks: one task for all prompts, or one per prompt. Rows come from its `train` split; the best checkpoint is
            chosen on its `validation` split.
        inits: the initialization; a prompt, or a sequence of prompts of one shape.
        recipe: how to train; by default the paper's recipe.
        method: a registered method that trains prompts (`tpv.register.method`), or an instance of one.
        parameters: of the method, where it is given by name.
        seeds: data-order seed of each prompt; by default `recipe.seed` for all.
        targets: what rows teach; by default their gold answers.
        callback: called with a `Progress` after every step; by default a live bar on a terminal.
        checkpoint: a file for the state of training, written about once a minute. Where it exists, training resumes
            from it and gives, bit for bit, what an uninterrupted run gives. It is deleted at the end.

    Returns:
        The tuned prompt, or a list in the order of `inits`. Results match training each prompt separately. Its
        `history` has a row for each step: `step`, `loss`, `lr`, `score` (what checkpoints are selected by) and
        `exact_match`, these two null where nothing was validated; see `tpv.plot.loss`.

    Raises:
        TpvError: a prompt of another model or shape, an empty split, labels that clash, an unknown method.
        TrainingError: a loss or gradient that is not finite.
    """
    recipe = recipe or Recipe()
    init_of = [inits] if isinstance(inits, PromptMatrix) else list(inits)
    if not isinstance(recipe, Recipe):
        raise TpvError("recipe", expected="a tpv.Recipe", got=type(recipe).__name__)
    check_bank(backbone, init_of)
    task_of = paired(tasks, len(init_of))
    seed_of = [recipe.seed] * len(init_of) if seeds is None else list(seeds)
    if len(seed_of) != len(init_of):
        raise TpvError("number of data-order seeds", expected=len(init_of), got=len(seed_of))
    trainer = method_of(method, parameters)
    about = "" if trainer == method_of("prompt_tuning", None) else json.dumps([type(trainer).__name__, repr(trainer)])
    trainees = [trainer.begin(backbone, task, init, recipe) for task, init in zip(task_of, init_of, strict=True)]
    tuned = fit_trainees(
        backbone,
        task_of,
        init_of,
        trainees,
        recipe,
        seeds=seed_of,
        about=about,
        targets=targets,
        callback=callback,
        checkpoint=checkpoint,
    )
    return tuned[0] if isinstance(inits, SoftPrompt) else tuned


def fit_trainees(
    backbone: Backbone,
    tasks: Sequence[Task],
    inits: Sequence[SoftPrompt],
    trainees: Sequence[Trainee],
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    about: str = "",
    targets: Targets | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> list[SoftPrompt]:
    """Train what a method has begun, a bank of prompts together; see `fit`, which begins them all by one method.

    Args:
        tasks, inits, trainees, seeds: one of each for every prompt.
        about: what decides the training beside the recipe, for its checkpoint to be known by.

    Returns:
        What each trainee's parameters stand for in the end, as a prompt tuned from its initialization.
    """
    runs = _runs(backbone, tasks, inits, trainees, recipe, seeds, about, targets)
    train(backbone, runs, recipe, callback=callback, checkpoint=checkpoint)
    return _tuned(backbone, tasks, inits, trainees, runs, recipe)


def _runs(
    backbone: Backbone,
    tasks: Sequence[Task],
    inits: Sequence[SoftPrompt],
    trainees: Sequence[Trainee],
    recipe: Recipe,
    seeds: Sequence[int],
    about: str,
    targets: Targets | None,
) -> list[Run]:
    """A run for each trainee, validated as the prompt that it stands for."""
    return [
        Run(
            [(task, trainee.reader())],
            trainee.parameters,
            backbone,
            recipe,
            seed,
            validation=[(task, Current(trainee, init.num_tokens))],
            about=about,
            targets=targets,
            loss=getattr(trainee, "loss", None),
        )
        for task, init, trainee, seed in zip(tasks, inits, trainees, seeds, strict=True)
    ]


def _tuned(
    backbone: Backbone,
    tasks: Sequence[Task],
    inits: Sequence[SoftPrompt],
    trainees: Sequence[Trainee],
    runs: Sequence[Run],
    recipe: Recipe,
) -> list[SoftPrompt]:
    """What trainees stand for after their runs, with the history of each."""
    fitted = recipe.fitted(embedding_rms(backbone))
    return [
        init.tuned_to(_kept(run, trainee), task.name, task.fingerprint).with_history(history_of(run, fitted))
        for run, trainee, init, task in zip(runs, trainees, inits, tasks, strict=True)
    ]


def _kept(run: Run, trainee: Trainee) -> Tensor:
    """The prompt of a run's best checkpoint."""
    run.restore()
    with torch.no_grad():
        return trainee.prompt().detach().clone()
