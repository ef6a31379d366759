"""Train a bank of runs through one frozen model.

Runs do not interact: each has its own tasks, data order, optimizer state, gradient clipping and best checkpoint, so
that a bank gives what separate runs give. They share only the forward passes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from tpv.errors import TpvError, TpvWarning, TrainingError
from tpv.evaluation.bank import assemble, chunks
from tpv.evaluation.encode import encode_examples
from tpv.evaluation.score import evaluate_readers
from tpv.models import Backbone
from tpv.models.frozen import sent
from tpv.progress import Callback, Progress, training_bar
from tpv.prompts.embeddings import embedding_rms
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.checkpoint import Checkpoint
from tpv.training.recipe import Recipe
from tpv.training.run import Run, TrainingRow, gold_targets, likelihood, long_target


def autocast(backbone: Backbone, recipe: Recipe) -> AbstractContextManager[object]:
    """What a recipe's forward passes run under."""
    if recipe.autocast:
        return torch.autocast(backbone.device_type, torch.bfloat16)
    return nullcontext()


def _step(backbone: Backbone, runs: Sequence[Run], recipe: Recipe) -> list[float]:
    """One forward and backward for every run; leaves `.grad` on each parameter, returns the losses."""
    rows: list[TrainingRow] = []
    index: list[int] = []
    weight: list[float] = []
    for k, run in enumerate(runs):
        batch = run.take()
        rows += batch
        index += [k] * len(batch)
        weight += [1.0 / sum(len(row.target) for row in batch)] * len(batch)  # the mean over its target tokens
    shares: list[torch.Tensor] = []
    owners: list[int] = []
    distinct = [reader for run in runs for _, reader in run.parts]
    for loss in dict.fromkeys(run.loss or likelihood for run in runs):
        mine = [i for i, k in enumerate(index) if (runs[k].loss or likelihood) is loss]
        lengths = [rows[i].reader.num_tokens + len(rows[i].source) + rows[i].long_target for i in mine]
        for chunk in chunks(lengths, backbone.training_positions, backbone.pass_worth):
            part = [mine[i] for i in chunk]
            own = [rows[i] for i in part]
            with autocast(backbone, recipe):
                bank, place = assemble(distinct, [row.reader for row in own], [row.source for row in own])
                costs = loss(backbone, bank, place, own)
            share = costs * sent(torch.tensor([weight[i] for i in part]), costs.device)
            share.sum().backward()
            shares.append(share.detach())
            owners += [index[i] for i in part]
    losses = torch.zeros(len(runs)).index_add_(0, torch.tensor(owners), torch.cat(shares).cpu())
    return losses.tolist()


@torch.no_grad()
def _pull_back(runs: Sequence[tuple[Run, list[torch.Tensor]]], step: int, recipe: Recipe) -> None:
    """Move what trained towards where it started (`Recipe.proximity`)."""
    for run, starts in runs:
        share = min(1.0, recipe.lr_at(step, run.total) * run.lr_factor * recipe.proximity)
        for parameter, start in zip(run.parameters, starts, strict=True):
            parameter.lerp_(start, share)


def _check_finite(run: Run, step: int, lr: float) -> None:
    # a batch without rows of one of several targets leaves that target's prompt without a gradient
    gradients = [parameter.grad for parameter in run.parameters if parameter.grad is not None]
    if not math.isfinite(run.losses[-1]) or not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise TrainingError(
            f"training {run.name!r} broke at step {step + 1}: the loss or its gradient is not finite",
            got=f"loss {run.losses[-1]} at lr {lr:g}",
            fix="lower lr, or use precision fp32",
        )


def train(
    backbone: Backbone,
    runs: Sequence[Run],
    recipe: Recipe,
    *,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train a bank of runs in place; see `fit` for the arguments and what is raised."""
    recipe = recipe.fitted(embedding_rms(backbone))
    if recipe.select != "last":
        for task in {id(task): task for run in runs for task, _ in run.validation}.values():
            # tell what is cut there once, not at every validation; and refuse an empty split before training
            others = task.examples("validation")
            encode_examples(backbone, others, recipe.max_input_length, f"task {task.name!r} (validation)")
            check_selection(recipe.select, task)
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
            _loop(backbone, runs, recipe, report, Checkpoint(checkpoint, runs, recipe) if checkpoint else None)
    finally:
        backbone.set_dropout(False)
    for run in runs:
        for complaint in run.complaints():
            warnings.warn(complaint, TpvWarning, stacklevel=3)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)


def check_selection(select: str, task: Task) -> None:
    """Refuse a metric to select by that the task does not have."""
    if select == "f1" and len(task.labels) != 2:
        raise TpvError(f"select 'f1' needs two labels, {task.name!r} has {len(task.labels)}")
    if select in ("pearson", "spearman") and not task.spec.numbers:
        raise TpvError(
            f"select {select!r} needs label words that are numbers",
            got=f"task {task.name!r}",
            fix="select by loss or exact_match",
        )
    if select in ("loss", "exact_match", "majority"):
        return
    of_text = register.metric[select].about.get("scope") == "text"
    if of_text != (task.spec.output == "text"):
        raise TpvError(
            f"select {select!r} is a metric of {'text' if of_text else 'labels'}",
            got=f"task {task.name!r}, whose output is {task.spec.output}",
            fix="select by loss or exact_match",
        )


def _validate(backbone: Backbone, runs: Sequence[Run], recipe: Recipe) -> float | None:
    """Score the validation splits of these runs, let each keep what is best; mean exact match, where it is known."""
    backbone.set_dropout(False)
    scored = [run for run in runs if not (recipe.select == "loss" and run.generates)]  # text takes long to generate
    parts = [part for run in scored for part in run.validation]
    with torch.no_grad():
        scores = iter(evaluate_readers(backbone, parts, "validation", recipe.max_input_length, tell=False))
    matches: list[float] = []
    for run in runs:
        mine = [next(scores) for _ in run.validation] if run in scored else []
        rows = sum(part.n for part in mine)
        if recipe.select == "loss" and (run.targets is not gold_targets or run not in scored):
            value = _loss_of(backbone, run, recipe)
        elif recipe.select == "loss":
            value = sum(part.loss * part.n for part in mine) / rows
        else:
            value = sum(part.metric(recipe.select) * part.n for part in mine) / rows
        higher = recipe.select != "loss" and register.metric[recipe.select].about.get("higher", True)
        match = sum(part.exact_match * part.n for part in mine) / rows if mine else None
        run.validations.append((len(run.losses), value, match))
        run.consider(mine, value if higher else -value, recipe)
        matches += [part.exact_match for part in mine]
    backbone.set_dropout(recipe.dropout)
    return sum(matches) / len(matches) if matches else None


def _loss_of(backbone: Backbone, run: Run, recipe: Recipe) -> float:
    """Validation loss of targets other than the gold answers, nats per token."""
    total, tokens = 0.0, 0
    for task, reader in run.validation:
        rows = task.examples("validation")
        sources = encode_examples(backbone, rows, recipe.max_input_length)
        targets = run.targets(backbone, task, rows)
        more = [long_target(target) for target in targets]
        costs = [reader.num_tokens + len(row) + extra for row, extra in zip(sources, more, strict=True)]
        for part in chunks(costs, backbone.scoring_positions, backbone.pass_worth):
            mine = [sources[i] for i in part]
            with torch.no_grad():
                bank, index = assemble([reader], [reader] * len(part), mine)
                total += float(backbone.nll(bank, index, mine, [targets[i] for i in part]).sum())
        tokens += sum(map(len, targets))
    return total / tokens


def _loop(
    backbone: Backbone,
    runs: Sequence[Run],
    recipe: Recipe,
    report: Callable[[Progress], object],
    checkpoint: Checkpoint | None,
) -> None:
    groups = [{"params": run.parameters} for run in runs]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=recipe.weight_decay, foreach=True)
    total = max(run.total for run in runs)
    starts = [[parameter.detach().clone() for parameter in run.parameters] for run in runs] if recipe.proximity else []
    first, score = checkpoint.load(optimizer, recipe.dropout) if checkpoint else (0, None)
    started = time.perf_counter()
    for step in range(first, total):
        active = [run for run in runs if not run.done]
        if not active:
            break
        losses = _step(backbone, active, recipe)
        for run, loss in zip(active, losses, strict=True):
            run.losses.append(loss)
            try:
                _check_finite(run, step, recipe.lr_at(step, run.total) * run.lr_factor)
            except TrainingError:
                if not run.trial:
                    raise
                run.done = run.broke = True
                for parameter in run.parameters:
                    parameter.grad = None
                continue
            torch.nn.utils.clip_grad_norm_(run.parameters, recipe.max_grad_norm)
        for run, group in zip(runs, optimizer.param_groups, strict=True):
            group["lr"] = recipe.lr_at(step, run.total) * run.lr_factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if recipe.proximity:
            _pull_back([(run, start) for run, start in zip(runs, starts, strict=True) if run in active], step, recipe)
        due = [run for run in active if (step + 1) % recipe.eval_every == 0 or step + 1 == run.total]
        due = [run for run in due if run.validation]  # those without are not chosen by any
        if due and recipe.select != "last":
            score = _validate(backbone, due, recipe)
        for run in active:
            run.done |= step + 1 >= run.total
        if checkpoint and checkpoint.due() and step + 1 < total:
            checkpoint.save(optimizer, step + 1, score, recipe.dropout)
        report(Progress(step + 1, total, sum(losses) / len(losses), score, time.perf_counter() - started))
