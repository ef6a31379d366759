"""Prompt tuning (eq. 1): a bank of prompts trained through one frozen model.

Prompts do not interact: each has its own task, start, data order, optimiser state, gradient clip and
best checkpoint, so a bank gives what K separate runs give. They share only the forward passes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args, overload

import torch
from torch import Tensor

from tpv.backbones import Backbone, Tokens
from tpv.errors import TpvError, TrainingError
from tpv.evaluation import MAX_INPUT_LENGTH, TOKEN_BUDGET, Scores, check_bank, chunks, evaluate, label_tokens, paired
from tpv.progress import Callback, Progress, training_bar
from tpv.tasks import Task
from tpv.vectors import PromptMatrix, SoftPrompt

Schedule = Literal["linear", "constant", "cosine"]
Selection = Literal["loss", "exact_match", "macro_f1", "f1", "last"]
BUCKET_BATCHES = 8  # batches are cut from this many batches' worth of rows, sorted by length


class TpvWarning(UserWarning):
    """Training ended, but what it gave is probably not what was wanted."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to tune. The defaults are the paper's (appendix A).

    Attributes:
        steps: optimiser steps; give these or `epochs`.
        epochs: passes over the training rows; 10 when neither is given.
        batch_size: rows a step, for each prompt.
        lr: peak learning rate of AdamW. 0.3 suits T5, whose embeddings are large.
        weight_decay: of AdamW, on the prompt itself, its start included.
        warmup_steps: linear warm-up; a run no longer than this warms up over its first tenth instead.
        schedule: after warm-up, `linear` or `cosine` decay to 0, or `constant`.
        max_grad_norm: each prompt's gradient is clipped to this Euclidean norm.
        eval_every: steps between validations; there is always one at the end.
        select: keep the checkpoint with the lowest validation `loss` or the highest of a score
            (`exact_match`, `macro_f1`, `f1`), or the `last` one without validating at all.
        patience: stop a prompt after this many validations without improvement.
        max_input_length: texts are cut at this many tokens.
        precision: `fp32` runs the model as it was loaded, `bf16` under autocast. Prompts stay fp32.
        dropout: leave the frozen model's own dropout on (the authors' code does: quirk 16). Its masks
            are drawn for the whole bank from `seed`, so a bank then differs from separate runs.
        seed: of the data order, and of nothing else but dropout.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    lr: float = 0.3
    weight_decay: float = 1e-5
    warmup_steps: int = 500
    schedule: Schedule = "linear"
    max_grad_norm: float = 1.0
    eval_every: int = 100
    select: Selection = "loss"
    patience: int | None = None
    max_input_length: int = MAX_INPUT_LENGTH
    precision: Literal["fp32", "bf16"] = "fp32"
    dropout: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        mistakes: list[str] = []

        def whole(name: str, least: int, optional: bool = False) -> None:
            value = getattr(self, name)
            if optional and value is None:
                return
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                mistakes.append(f"{name} must be a whole number of at least {least}, is {value!r}")

        def positive(name: str, zero: bool = False) -> None:
            value = getattr(self, name)
            good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not good or value < 0 or (value == 0 and not zero):
                kind = "a finite number of at least 0" if zero else "a positive finite number"
                mistakes.append(f"{name} must be {kind}, is {value!r}")

        def one_of(name: str, allowed: tuple[str, ...]) -> None:
            if getattr(self, name) not in allowed:
                mistakes.append(f"{name} must be one of {', '.join(allowed)}, is {getattr(self, name)!r}")

        whole("steps", 1, optional=True)
        whole("patience", 1, optional=True)
        for name in ("batch_size", "eval_every", "max_input_length"):
            whole(name, 1)
        for name in ("warmup_steps", "seed"):
            whole(name, 0)
        if self.epochs is not None:
            positive("epochs")
        positive("lr")
        positive("max_grad_norm")
        positive("weight_decay", zero=True)
        one_of("schedule", get_args(Schedule))
        one_of("select", get_args(Selection))
        one_of("precision", ("fp32", "bf16"))
        if self.steps is not None and self.epochs is not None:
            mistakes.append("give steps or epochs, not both")
        if mistakes:
            raise TpvError("recipe does not hold", got="; ".join(mistakes))

    def total_steps(self, rows: int) -> int:
        """Optimiser steps of a run over `rows` training rows."""
        if self.steps is not None:
            return self.steps
        epochs = 10.0 if self.epochs is None else self.epochs
        return max(1, math.ceil(epochs * math.ceil(rows / self.batch_size)))

    def effective_warmup(self, total: int) -> int:
        """Warm-up steps of a run of `total` steps: as asked, or a tenth of a run no longer than that."""
        return self.warmup_steps if total > self.warmup_steps else total // 10

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of optimiser step `step` (from 0), as `transformers.get_scheduler` has it."""
        warmup = self.effective_warmup(total)
        if step < warmup:
            return self.lr * step / max(1, warmup)
        if self.schedule == "constant":
            return self.lr
        progress = (step - warmup) / max(1, total - warmup)
        if self.schedule == "linear":
            return self.lr * max(0.0, 1.0 - progress)
        return self.lr * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def batches(lengths: Sequence[int], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless shuffled batches of row indices, rows of like length together.

    Every epoch visits every row once. Rows are shuffled, sorted by length within blocks of a few
    batches, cut into batches, and the batches of a block shuffled; `seed` alone decides the order.
    """
    rng = Random(f"data order {seed}")
    order = list(range(len(lengths)))
    while True:
        rng.shuffle(order)
        for start in range(0, len(order), batch_size * BUCKET_BATCHES):
            block = sorted(order[start : start + batch_size * BUCKET_BATCHES], key=lambda i: lengths[i])
            cut = [block[i : i + batch_size] for i in range(0, len(block), batch_size)]
            rng.shuffle(cut)
            yield from cut


class _Run:
    """One prompt of a bank while it trains."""

    def __init__(self, task: Task, init: SoftPrompt, backbone: Backbone, recipe: Recipe, seed: int) -> None:
        self.task, self.init = task, init
        rows = task.examples("train")
        self.sources = backbone.encode_sources([row.source for row in rows], recipe.max_input_length)
        words = label_tokens(backbone, task)
        self.targets = [words[row.label] for row in rows]
        self.order = batches([len(row) for row in self.sources], recipe.batch_size, seed)
        self.total = recipe.total_steps(len(rows))
        self.parameter = torch.nn.Parameter(init.tensor)
        self.losses: list[float] = []
        self.best: Tensor | None = None
        self.best_score = -math.inf
        self.best_scores: Scores | None = None
        self.stale = 0
        self.done = False

    def take(self) -> list[tuple[Tokens, Tokens]]:
        return [(self.sources[i], self.targets[i]) for i in next(self.order)]

    def prompt(self, tensor: Tensor) -> SoftPrompt:
        return self.init.tuned_to(tensor, self.task.name, self.task.fingerprint)

    def consider(self, scores: Scores, recipe: Recipe) -> None:
        """Keep the current values if their validation is the best so far; stop when patience ends."""
        value = -scores.loss if recipe.select == "loss" else scores.metric(recipe.select)
        if value > self.best_score or self.best is None:
            self.best, self.best_score, self.best_scores = self.parameter.detach().clone(), value, scores
            self.stale = 0
        else:
            self.stale += 1
            self.done |= recipe.patience is not None and self.stale >= recipe.patience

    def complaints(self) -> Iterator[str]:
        """What a user should hear about a run that ended without an error."""
        tenth = max(1, len(self.losses) // 10)
        before, after = (sum(part) / tenth for part in (self.losses[:tenth], self.losses[-tenth:]))
        if len(self.losses) >= 20 and after > 0.98 * before and after > 0.05:
            yield (
                f"the loss of {self.task.name!r} stayed flat ({before:.3f} to {after:.3f} in {len(self.losses)} "
                "steps); try another lr or more steps"
            )
        if self.best_scores is not None and self.best_scores.n >= 10 and self.best_scores.majority < 1.0:
            said = {word for word in self.best_scores.predictions["predicted"].to_pylist() if word is not None}
            if not said:
                yield f"the prompt of {self.task.name!r} says no label word at all; try another lr or more steps"
            if len(said) == 1:
                yield f"the prompt of {self.task.name!r} predicts one class only ({said.pop()!r})"


def _step(backbone: Backbone, runs: Sequence[_Run], recipe: Recipe) -> list[float]:
    """One forward and backward for every run; leaves `.grad` on each parameter, returns the losses."""
    bank = torch.stack([run.parameter.detach() for run in runs]).requires_grad_()
    sources: list[Tokens] = []
    targets: list[Tokens] = []
    index: list[int] = []
    weight: list[float] = []
    for k, run in enumerate(runs):
        batch = run.take()
        tokens = sum(len(target) for _, target in batch)
        for source, target in batch:
            sources.append(source)
            targets.append(target)
            index.append(k)
            weight.append(1.0 / tokens)  # a batch's loss is the mean over its target tokens
    losses = torch.zeros(len(runs))
    autocast: AbstractContextManager[object] = nullcontext()
    if recipe.precision == "bf16":
        autocast = torch.autocast(backbone.device_type, torch.bfloat16)
    for part in chunks([bank.shape[1] + len(row) for row in sources], TOKEN_BUDGET):
        rows = torch.tensor([index[i] for i in part])
        with autocast:
            nll = backbone.nll(bank, rows, [sources[i] for i in part], [targets[i] for i in part])
        share = nll * torch.tensor([weight[i] for i in part], device=nll.device)
        share.sum().backward()
        losses.index_add_(0, rows, share.detach().cpu())
    assert bank.grad is not None
    for run, grad in zip(runs, bank.grad, strict=True):
        run.parameter.grad = grad
    return losses.tolist()


def _check_finite(run: _Run, step: int, lr: float) -> None:
    gradient = run.parameter.grad
    if not math.isfinite(run.losses[-1]) or gradient is None or not torch.isfinite(gradient).all():
        raise TrainingError(
            f"training {run.task.name!r} broke at step {step + 1}: the loss or its gradient is not finite",
            got=f"loss {run.losses[-1]} at lr {lr:g}", fix="lower lr, or use precision fp32",
        )  # fmt: skip


@overload
def fit(
    backbone: Backbone, tasks: Task | Sequence[Task], inits: SoftPrompt, recipe: Recipe | None = ..., *,
    seeds: Sequence[int] | None = ..., callback: Callback | None = ...,
) -> SoftPrompt: ...  # fmt: skip
@overload
def fit(
    backbone: Backbone, tasks: Task | Sequence[Task], inits: Sequence[SoftPrompt], recipe: Recipe | None = ..., *,
    seeds: Sequence[int] | None = ..., callback: Callback | None = ...,
) -> list[SoftPrompt]: ...  # fmt: skip
def fit(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    inits: SoftPrompt | Sequence[SoftPrompt],
    recipe: Recipe | None = None,
    *,
    seeds: Sequence[int] | None = None,
    callback: Callback | None = None,
) -> SoftPrompt | list[SoftPrompt]:
    """Tune one prompt, or a bank of prompts together, on a frozen model (eq. 1).

    Args:
        tasks: one task for all prompts, or one a prompt; rows come from its `train` split, the best
            checkpoint is chosen on its `validation` split.
        inits: where to start; a prompt, or a sequence of prompts of one shape.
        recipe: how; by default the paper's.
        seeds: data-order seed of each prompt; by default `recipe.seed` for all.
        callback: called with a `Progress` after every step; by default a live bar on a terminal.

    Returns:
        The tuned prompt, or a list in the order of `inits`; each is what it would be trained alone.

    Raises:
        TpvError: a prompt of another model or shape, an empty split, or labels that clash.
        TrainingError: a loss or gradient that is not finite.
    """
    recipe = recipe or Recipe()
    start_of = [inits] if isinstance(inits, PromptMatrix) else list(inits)
    if not isinstance(recipe, Recipe):
        raise TpvError("recipe", expected="a tpv.Recipe", got=type(recipe).__name__)
    check_bank(backbone, start_of)
    task_of = paired(tasks, len(start_of))
    seed_of = [recipe.seed] * len(start_of) if seeds is None else list(seeds)
    if len(seed_of) != len(start_of):
        raise TpvError("number of data-order seeds", expected=len(start_of), got=len(seed_of))
    runs = [
        _Run(task, init, backbone, recipe, seed) for task, init, seed in zip(task_of, start_of, seed_of, strict=True)
    ]
    if recipe.select != "last":
        for run in runs:
            run.task.examples("validation")  # refuse an empty split before training, not after
            if recipe.select == "f1" and len(run.task.labels) != 2:
                raise TpvError(f"select 'f1' needs two labels, {run.task.name!r} has {len(run.task.labels)}")
    if callback is None:
        context: AbstractContextManager[Callback] = training_bar(
            f"tuning {len(runs)} prompt{'s' if len(runs) > 1 else ''}"
        )
    else:
        context = nullcontext(callback)
    backbone.set_dropout(recipe.dropout)
    try:
        with context as report, torch.random.fork_rng(enabled=recipe.dropout):
            if recipe.dropout:
                torch.manual_seed(recipe.seed)
            _train(backbone, runs, recipe, report)
    finally:
        backbone.set_dropout(False)
    for run in runs:
        for complaint in run.complaints():
            warnings.warn(complaint, TpvWarning, stacklevel=2)
    tuned = [run.prompt(run.parameter if run.best is None else run.best) for run in runs]
    return tuned[0] if isinstance(inits, SoftPrompt) else tuned


def _train(backbone: Backbone, runs: Sequence[_Run], recipe: Recipe, report: Callback) -> None:
    groups = [{"params": [run.parameter]} for run in runs]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, foreach=True)
    total = max(run.total for run in runs)
    started, score = time.perf_counter(), None
    for step in range(total):
        active = [run for run in runs if not run.done]
        if not active:
            break
        losses = _step(backbone, active, recipe)
        for run, loss in zip(active, losses, strict=True):
            run.losses.append(loss)
            _check_finite(run, step, recipe.lr_at(step, run.total))
            torch.nn.utils.clip_grad_norm_(run.parameter, recipe.max_grad_norm)
        for run, group in zip(runs, optimizer.param_groups, strict=True):
            group["lr"] = recipe.lr_at(step, run.total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        due = [run for run in active if (step + 1) % recipe.eval_every == 0 or step + 1 == run.total]
        if due and recipe.select != "last":
            backbone.set_dropout(False)
            prompts = [run.prompt(run.parameter) for run in due]
            scored = evaluate(
                backbone, [run.task for run in due], prompts, "validation", max_input_length=recipe.max_input_length
            )
            backbone.set_dropout(recipe.dropout)
            for run, scores in zip(due, scored, strict=True):
                run.consider(scores, recipe)
            score = sum(scores.exact_match for scores in scored) / len(scored)
        for run in active:
            run.done |= step + 1 >= run.total
        report(Progress(step + 1, total, sum(losses) / len(losses), score, time.perf_counter() - started))
