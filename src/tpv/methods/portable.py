"""Vectors trained as vectors: under starts that change at every step, and beside other vectors.

Row r of a batch reads the prompt

    base[r] + a[r] · tau + sum_k b[r, k] · tau_k

tau is its task's vector, which trains and starts at zero. *Portable*: base[r] is a fresh random start, so that tau
cannot come to rely on one. *Composable*: the tau_k are the other tasks' vectors, each there or not by chance, so that
tau works beside them; they train together with it, or are a frozen pool of vectors that were there before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import IncompatibleError, TpvError, did_you_mean
from tpv.evaluation.score import SharedPrompt, check_bank, paired
from tpv.models import Backbone, Tokens
from tpv.progress import Callback
from tpv.prompts import initializers
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, matrices
from tpv.prompts.provenance import Component, Init, VectorTraining, content_hash
from tpv.tasks import Task
from tpv.training.loop import Run, train
from tpv.training.recipe import Recipe

Starts = Literal["vocabulary", "normal", "zero"]
VALIDATION_SEED = 2**62  # of the start that checkpoints are chosen on: no start that a user is likely to draw


class _Starts:
    """Where rows start: fresh draws [M, P, H], or one fixed start."""

    def __init__(
        self, backbone: Backbone, starts: Starts | Sequence[SoftPrompt], num_tokens: int, fresh: bool, seed: int
    ) -> None:
        prompts = [] if isinstance(starts, str) else list(starts)
        self.kind = starts if isinstance(starts, str) else "given"
        self.count, self.fresh = num_tokens, fresh
        self.fixed: Tensor | None = None
        self.home: Init | None = None
        self._rows, self._std, self._given = backbone.embeddings(), 0.0, torch.empty(0)
        if not isinstance(starts, str):
            self._given = check_bank(backbone, prompts)
            if self._given.shape[1] != num_tokens:
                raise TpvError("starts to draw from", expected=f"{num_tokens} tokens", got=self._given.shape[1])
        elif starts not in ("vocabulary", "normal", "zero"):
            raise TpvError("starts", expected="vocabulary, normal, zero, or prompts", got=repr(starts))
        if self.kind == "zero":
            if fresh:
                raise TpvError(
                    "portable vectors",
                    expected="starts to draw from",
                    got="'zero', of which there is one",
                    fix="pass portable=False",
                )
            self.fixed, self.home = initializers.zero(backbone, num_tokens)
        elif self.kind == "vocabulary":
            drawn, init = initializers.from_vocabulary(backbone, num_tokens, VALIDATION_SEED if fresh else seed)
            self.fixed, self.home = drawn, None if fresh else init
            self._rows = self._rows[: min(initializers.VOCABULARY_LIMIT, len(self._rows))].float()
        elif self.kind == "normal":
            drawn, init = initializers.normal(backbone, num_tokens, VALIDATION_SEED if fresh else seed)
            self.fixed, self.home = drawn, None if fresh else init
            self._std = float(self._rows.float().square().mean().sqrt())
        else:
            self.fixed = self._given[0]
            self.home = None if fresh else prompts[0].init

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Starts [count, P, H]."""
        assert self.fixed is not None
        if not self.fresh:
            return self.fixed.expand(count, -1, -1)
        if self.kind == "vocabulary":
            # the largest of random numbers: distinct ids in random order
            ids = torch.rand(count, len(self._rows), generator=generator).topk(self.count, dim=1).indices
            return self._rows[ids]
        if self.kind == "normal":
            return torch.randn(count, self.count, self._rows.shape[1], generator=generator) * self._std
        return self._given[torch.randint(len(self._given), (count,), generator=generator)]


class _Mixture:
    """A `PromptReader` of prompts drawn anew at each step: start + own vector + others, each there or not by chance.

    Args:
        own: the vector of the rows' task; `own_trains` says whether its factor is drawn from `scales` or 1.
        together: vectors that train beside it.
        frozen: a pool [J, P, H] of vectors that do not.
        draws: how many prompts are drawn a step; rows take them in turn.
    """

    def __init__(
        self,
        starts: _Starts,
        own: Tensor,
        together: Sequence[Tensor],
        frozen: Tensor,
        *,
        scales: tuple[float, float],
        chance: float,
        draws: int,
        seed: str,
    ) -> None:
        self.starts, self.own, self.together, self.frozen = starts, own, list(together), frozen
        self.scales, self.chance, self.draws, self.seed = scales, chance, draws, seed
        self.begin(0)

    @property
    def num_tokens(self) -> int:
        return self.own.shape[0]

    def begin(self, step: int) -> None:
        """Draw the prompts of a step; decided by seed and step alone, so that a resumed training draws the same."""
        digest = hashlib.sha256(f"{self.seed} {step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        self._taken = 0
        self._base = self.starts.draw(self.draws, generator)
        low, high = self.scales

        def scale(columns: int) -> Tensor:
            return low + (high - low) * torch.rand(self.draws, columns, generator=generator)

        def there(columns: int) -> Tensor:
            return (torch.rand(self.draws, columns, generator=generator) < self.chance).float()

        self._factors = torch.cat(
            [scale(1), there(len(self.together)), there(len(self.frozen)) * scale(len(self.frozen))], dim=1
        )

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        index = (torch.arange(len(sources)) + self._taken) % self.draws
        self._taken += len(sources)
        used, local = index.unique(return_inverse=True)
        vectors = torch.cat([torch.stack([self.own, *self.together]), self.frozen])
        return self._base[used] + torch.einsum("mk,kph->mph", self._factors[used], vectors), local


class _Sum:
    """A `PromptReader`: a fixed start plus vectors as they are now."""

    def __init__(self, start: Tensor, vectors: Sequence[Tensor], frozen: Tensor) -> None:
        self.start, self.vectors, self.frozen = start, list(vectors), frozen

    @property
    def num_tokens(self) -> int:
        return self.start.shape[0]

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        total = self.start + torch.stack(self.vectors).sum(0) + self.frozen.sum(0)
        return SharedPrompt(total).read(sources)


def fit_vectors(
    backbone: Backbone,
    tasks: Sequence[Task],
    recipe: Recipe | None = None,
    *,
    portable: bool = True,
    composable: bool = False,
    num_tokens: int = 100,
    starts: Starts | Sequence[SoftPrompt] = "vocabulary",
    seed: int = 0,
    pool: Sequence[TaskPromptVector] = (),
    replay: Sequence[Task] = (),
    scales: tuple[float, float] = (1.0, 1.0),
    chance: float = 0.5,
    draws: int | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> list[TaskPromptVector]:
    """Train task prompt vectors themselves, all tasks as one bank: each moves to any start, or adds to the others.

    Args:
        tasks: one vector for each. Names must differ.
        recipe: as for `tpv.fit`; what trains is the vector, from zero, so that `weight_decay` pulls it to zero.
        portable: draw a fresh start for every row (or batch, see `draws`) of every step, so that the vector works on
            any; otherwise one start serves throughout: the draw of `seed`, zero, or the first of the prompts given.
        composable: add each other vector to a row's prompt with probability `chance`, so that sums work. The loss
            of a row is its own task's, and all vectors in its prompt learn from it.
        num_tokens: P, rows of the vectors.
        starts: `vocabulary` or `normal` (as `SoftPrompt.sample` and `SoftPrompt.normal` draw), `zero` (one fixed
            start; not portable), or prompts [P, H] to draw from.
        seed: of all that is drawn but the data order, which is the recipe's.
        pool: vectors that were there before, one term each. They are added as the others are, with factors from
            `scales`, and stay as they are: a new task's vector learns to work beside them (needs `composable`).
        replay: tasks of the pool's vectors, by name: one more batch a step, of their rows, is read under their own
            vectors with the new ones beside them by chance, so that the new ones learn not to harm them.
        scales: range of a vector's own factor; (0.5, 1) makes it work at half its size too.
        draws: how many prompts are drawn a step, which rows share in turn; by default one a row, or a single one
            where the model calculates each prompt once a batch (causal models).
        callback, checkpoint: see `tpv.fit`.

    Returns:
        Vectors in the order of the tasks. Portable ones have no home: their components' `init` is None, and
        `training` says how they were trained.

    Raises:
        TpvError: no tasks, two of one name, options that do not fit together; what `tpv.fit` raises.
    """
    recipe = recipe or Recipe()
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    _check(tasks, composable, pool, replay, scales, chance, draws)
    begin = _Starts(backbone, starts, num_tokens, portable, seed)
    frozen = _pool(backbone, pool, num_tokens)
    taus = [Parameter(torch.zeros(num_tokens, backbone.identity.hidden_size)) for _ in tasks]
    if draws is None:
        draws = 1 if getattr(backbone, "share_prompts", False) else recipe.batch_size

    def mixture(own: Tensor, together: Sequence[Tensor], beside: Tensor, who: str) -> _Mixture:
        return _Mixture(begin, own, together, beside, scales=scales, chance=chance, draws=draws, seed=f"{seed} {who}")

    settings = [
        begin.kind,
        portable,
        composable,
        num_tokens,
        seed,
        list(scales),
        chance,
        draws,
        [vector.digest for vector in pool],
        [task.fingerprint for task in replay],
    ]
    runs: list[Run] = []
    assert begin.fixed is not None
    for k, task in enumerate(tasks):
        others = [tau for tau in taus if tau is not taus[k]] if composable else []
        reader = mixture(taus[k], others, frozen, task.name)
        judge = (task, _Sum(begin.fixed, [taus[k], *others], frozen))
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
    names = {task.name for task in tasks} | {name for vector in pool for name in vector.terms}
    return [
        _vector(
            backbone,
            task,
            run.result()[0],
            begin.home,
            VectorTraining(
                starts=begin.kind if portable else "",
                scales=scales,
                seed=seed,
                beside=tuple(sorted(names - {task.name})) if composable else (),
                pool=tuple(sorted(part.origin for vector in pool for part in vector.components)),
            ),
        )
        for task, run in zip(tasks, runs, strict=False)  # a run of replay has no vector of its own
    ]


def _replayed(
    backbone: Backbone,
    recipe: Recipe,
    replay: Sequence[Task],
    pool: Sequence[TaskPromptVector],
    frozen: Tensor,
    taus: Sequence[Tensor],
    mixture: Callable[[Tensor, Sequence[Tensor], Tensor, str], _Mixture],
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
    backbone: Backbone, task: Task, tensor: Tensor, home: Init | None, training: VectorTraining
) -> TaskPromptVector:
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
