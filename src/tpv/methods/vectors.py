"""Vectors trained as vectors: under initializations that change at every step, and beside other vectors.

Row r of a batch reads the prompt

    base[r] + a[r] · tau + sum_k b[r, k] · tau_k

tau is its task's vector, which trains from zero. *Portable*: base[r] is a fresh random initialization, so that
tau cannot come to rely on one. *Composable*: the tau_k are the other tasks' vectors, each present or not by chance, so
that tau works beside them; they train together with it, or are a frozen pool of existing vectors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import IncompatibleError, TpvError, did_you_mean
from tpv.evaluation.bank import paired
from tpv.methods.readers import FixedSum, Inits, Mixture
from tpv.models import Backbone
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.embeddings import embedding_rms
from tpv.prompts.initializers import Initializer
from tpv.prompts.matrix import matrices
from tpv.prompts.provenance import Component, Init, VectorTraining, content_hash
from tpv.tasks import Task
from tpv.training.loop import train
from tpv.training.recipe import Recipe, fitting_vector_lr
from tpv.training.run import Run


class VectorMethod(Protocol):
    """A method that trains the vectors of several tasks together: a frozen dataclass, its fields the parameters.

    Attributes:
        kind: `vectors`.
        home: whether its vectors come from one initialization, zero, and are scored on it as well.
    """

    kind: ClassVar[str]
    home: ClassVar[bool]

    def fit(
        self,
        backbone: Backbone,
        tasks: Sequence[Task],
        recipe: Recipe,
        *,
        num_tokens: int,
        init: str | Initializer,
        seed: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
    ) -> list[TaskPromptVector]:
        """One vector per task, in their order."""
        ...


def fit_vectors(
    backbone: Backbone,
    tasks: Sequence[Task],
    recipe: Recipe | None = None,
    *,
    portable: bool = True,
    composable: bool = False,
    num_tokens: int = 100,
    init: str | Initializer | Sequence[SoftPrompt] = "vocabulary",
    seed: int = 0,
    pool: Sequence[TaskPromptVector] = (),
    replay: Sequence[Task] = (),
    scales: tuple[float, float] = (1.0, 1.0),
    chance: float = 0.5,
    draws: int | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> list[TaskPromptVector]:
    """Train task prompt vectors themselves, all tasks as one bank, for other initializations or for sums.

    Args:
        tasks: one vector for each. Names must differ.
        recipe: as for `tpv.fit`; what trains is the vector, from zero, so that `weight_decay` pulls it to zero. The
            rate `auto` is `tpv.training.recipe.fitting_vector_lr` of portable and of composable vectors.
        portable: draw a fresh initialization for every row (or batch, see `draws`) of every step, so that the vector
            works on any; otherwise one serves throughout: the draw of `seed`, zero, or the first of the prompts given.
        composable: add each other vector to a row's prompt with probability `chance`, so that sums work. The loss
            of a row is its own task's, and all vectors in its prompt learn from it.
        num_tokens: P, rows of the vectors.
        init: a registered initializer, by name or made already (`vocabulary` and `normal` draw as
            `SoftPrompt.sample` does; `zero` is one fixed initialization and not portable), or prompts [P, H] to draw
            from. Score the vectors on the same distribution.
        seed: of all that is drawn but the data order, which is the recipe's.
        pool: existing vectors to keep frozen, one term each. They are added as the others are, with factors from
            `scales`: a new task's vector learns to work beside them (needs `composable`).
        replay: tasks of the pool's vectors, by name: one more batch per step, of their rows, is read under their own
            vectors with the new ones beside them by chance, so that the new ones learn not to harm them.
        scales: range of a vector's own factor; (0.5, 1) makes it work at half its size too.
        draws: how many prompts are drawn per step, which rows share in turn; by default one per row, or a single one
            where the model calculates each prompt once per batch (causal models).
        callback: see `tpv.fit`.
        checkpoint: see `tpv.fit`.

    Returns:
        Vectors in the order of the tasks. A portable one was trained from no single initialization: its component's
        `init` is None, and `training` says how it was trained.

    Raises:
        TpvError: no tasks, two of one name, options that do not fit together; what `tpv.fit` raises.
    """
    recipe = recipe or Recipe()
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    _check(tasks, composable, pool, replay, scales, chance, draws)
    begin = Inits(backbone, init, num_tokens, portable, seed)
    frozen = _pool(backbone, pool, num_tokens)
    if recipe.lr == "auto" and (portable or composable):
        recipe = replace(recipe, lr=fitting_vector_lr(embedding_rms(backbone), composable))
    taus = [Parameter(torch.zeros(num_tokens, backbone.identity.hidden_size)) for _ in tasks]
    if draws is None:
        draws = 1 if backbone.share_prompts else recipe.batch_size

    def mixture(own: Tensor, together: Sequence[Tensor], beside: Tensor, who: str) -> Mixture:
        return Mixture(begin, own, together, beside, scales=scales, chance=chance, draws=draws, seed=f"{seed} {who}")

    drawing = [begin.kind, begin.parameters, portable, composable, num_tokens, seed, list(scales), chance, draws]
    settings = [*drawing, [vector.digest for vector in pool], [task.fingerprint for task in replay]]
    runs: list[Run] = []
    for k, task in enumerate(tasks):
        others = [tau for tau in taus if tau is not taus[k]] if composable else []
        reader = mixture(taus[k], others, frozen, task.name)
        judge = (task, FixedSum(begin.fixed, [taus[k], *others], frozen))
        runs.append(
            Run(
                [(task, reader)],
                [taus[k]],
                backbone,
                recipe,
                recipe.seed,
                validation=[judge],
                begin=reader.begin,
                about=json.dumps(settings),
            )
        )
    if composable:  # vectors that train beside each other have to end together
        longest = max(run.total for run in runs)
        for run in runs:
            run.total = longest
    if replay:
        runs.append(_replayed(backbone, recipe, replay, pool, frozen, taus, mixture, json.dumps(settings)))
        runs[-1].total = runs[0].total
    train(backbone, runs, recipe, callback=callback, checkpoint=checkpoint)
    trained = VectorTraining(
        starts=begin.kind if portable else "",
        parameters=begin.parameters if portable else None,
        scales=scales,
        seed=seed,
        pool=tuple(sorted(part.origin for vector in pool for part in vector.components)),
    )
    names = {task.name for task in tasks} | {name for vector in pool for name in vector.terms} if composable else set()
    return [  # a run of replay has no vector of its own
        _vector(backbone, task, run.result()[0], begin.home, trained, names - {task.name})
        for task, run in zip(tasks, runs, strict=False)
    ]


@dataclass(frozen=True, kw_only=True)
class FittedVectors:
    """A `VectorMethod` that is `fit_vectors` with some of its options set.

    Attributes:
        options: the options of `fit_vectors` that make the method.
        scales: range that a vector's own factor is drawn from, the same for all by default.
        draws: prompts drawn per step; by default one per row, or one per batch on a causal model.
    """

    kind: ClassVar[str] = "vectors"
    home: ClassVar[bool] = False
    options: ClassVar[Mapping[str, Any]] = {}
    scales: tuple[float, float] = (1.0, 1.0)
    draws: int | None = None

    def fit(self, backbone: Backbone, tasks: Sequence[Task], recipe: Recipe, **given: Any) -> list[TaskPromptVector]:
        """One vector per task; what `options` sets is not to be chosen."""
        return fit_vectors(backbone, tasks, recipe, scales=self.scales, draws=self.draws, **{**given, **self.options})


def _replayed(
    backbone: Backbone,
    recipe: Recipe,
    replay: Sequence[Task],
    pool: Sequence[TaskPromptVector],
    frozen: Tensor,
    taus: Sequence[Tensor],
    mixture: Callable[[Tensor, Sequence[Tensor], Tensor, str], Mixture],
    about: str,
) -> Run:
    """Rows of the pool's tasks under their own vectors: nothing of its own trains, the new vectors learn from it."""
    place = {next(iter(vector.terms)): j for j, vector in enumerate(pool)}
    parts = []
    for task in replay:
        j = place[task.name]
        parts.append((task, mixture(frozen[j], taus, torch.cat([frozen[:j], frozen[j + 1 :]]), f"replay {task.name}")))

    def begin(step: int) -> None:
        for _, reader in parts:
            reader.begin(step)

    return Run(parts, [], backbone, recipe, recipe.seed, validation=[], begin=begin, about=about)


def _check(
    tasks: Sequence[Task],
    composable: bool,
    pool: Sequence[TaskPromptVector],
    replay: Sequence[Task],
    scales: tuple[float, float],
    chance: float,
    draws: int | None,
) -> None:
    names = [task.name for task in paired(tasks, len(tasks))]
    if not names or len(set(names)) < len(names):
        raise TpvError("tasks to train vectors of", expected="at least one, and no name twice", got=names)
    if (pool or replay) and not composable:
        raise TpvError("a pool of vectors", expected="composable=True with it", got="composable=False")
    if composable and len(tasks) + len(pool) < 2:
        raise TpvError(
            "a composable vector",
            expected="other tasks, or a pool of vectors, to work beside",
            got="neither",
            fix="give more tasks, or pool=",
        )
    for vector in pool:
        if not isinstance(vector, TaskPromptVector):
            raise TpvError("a pool of vectors", expected="TaskPromptVector", got=type(vector).__name__)
    known = [name for vector in pool for name in vector.terms]
    several = [list(vector.terms) for vector in pool if list(vector.terms.values()) != [1.0]]
    if several:
        raise TpvError("vectors of a pool", expected="one task's each, at scale 1", got=several)
    if len({*known, *names}) < len(known) + len(names):
        raise TpvError("vectors of a pool", expected="tasks that are not trained, each once", got=known)
    for task in replay:
        if task.name not in known:
            raise TpvError(
                f"task {task.name!r} to replay",
                expected="a task of the pool",
                got=known,
                fix=did_you_mean(task.name, known),
            )
    if len(scales) != 2 or not all(math.isfinite(scale) for scale in scales) or not 0 < scales[0] <= scales[1]:
        raise TpvError("scales", expected="two positive numbers, ascending", got=scales)
    if not 0 < chance <= 1:
        raise TpvError("chance", expected="above 0, at most 1", got=chance)
    if draws is not None and (isinstance(draws, bool) or not isinstance(draws, int) or draws < 1):
        raise TpvError("draws", expected="a whole number of at least 1", got=draws)


def _pool(backbone: Backbone, pool: Sequence[TaskPromptVector], num_tokens: int) -> Tensor:
    """The vectors of a pool, [J, P, H]."""
    shape = (num_tokens, backbone.identity.hidden_size)
    for vector in pool:
        if vector.model.fingerprint != backbone.identity.fingerprint or tuple(vector.tensor.shape) != shape:
            raise IncompatibleError(
                f"vector {vector!r} of the pool does not fit",
                expected=f"[{shape[0]}, {shape[1]}] of {backbone.identity}",
                got=f"{list(vector.tensor.shape)} of {vector.model}",
            )
    return torch.stack(matrices(pool)) if pool else torch.empty(0, *shape)


def _vector(
    backbone: Backbone, task: Task, tensor: Tensor, home: Init | None, trained: VectorTraining, beside: set[str]
) -> TaskPromptVector:
    training = trained.model_copy(update={"beside": tuple(sorted(beside))})
    origin = content_hash(tensor.contiguous(), {"task": task.name, "training": training.model_dump(mode="json")})
    plain = not training.starts and not training.beside and training.scales == (1.0, 1.0)
    part = Component(
        task=task.name,
        data=task.fingerprint,
        origin=origin,
        init=home,
        coefficient=1.0,
        training=None if plain else training,
    )
    return TaskPromptVector(tensor, backbone.identity, (part,))
