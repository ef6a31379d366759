"""Prompt tuning (eq. 1): a bank of prompts trained through one frozen model.

Prompts do not interact: each has its own task, start, data order, optimiser state, gradient clip and
best checkpoint, so a bank gives what K separate runs give. They share only the forward passes.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import CheckpointError, TpvError, TpvWarning, TrainingError
from tpv.evaluation.score import (
    TOKEN_BUDGET,
    PromptReader,
    Scores,
    SharedPrompt,
    assemble,
    check_bank,
    chunks,
    encode_examples,
    evaluate_readers,
    label_tokens,
    paired,
)
from tpv.files import atomic_write, regular
from tpv.models import Backbone, Tokens
from tpv.progress import Callback, Progress, training_bar
from tpv.prompts.algebra import PromptMatrix, SoftPrompt
from tpv.prompts.provenance import tensor_bytes
from tpv.tasks import Task
from tpv.training.recipe import Recipe

CHECKPOINT_SECONDS = 60.0  # between two saved states of a training
BUCKET_BATCHES = 8  # batches are cut from this many batches' worth of rows, sorted by length


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


class Run:
    """One thing that trains in a bank: a prompt, or (ATTEMPT) prompts that share an attention.

    Args:
        parts: each task it trains on, with what reads a prompt for that task's rows. The rows of all
            parts are shuffled together.
        parameters: what the optimiser changes.
        seed: of the data order.
        lr_factor: its learning rate is this times the recipe's.
        trial: end this run alone, not the bank, where its loss or gradient is not finite, and complain of nothing.
        validation: the parts that checkpoints are chosen by; by default those it trains on.
        begin: called with the number of each step before its rows are read.
        about: what else decides the training, for its checkpoint to be known by.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Task, PromptReader]],
        parameters: Sequence[Parameter],
        backbone: Backbone,
        recipe: Recipe,
        seed: int,
        *,
        lr_factor: float = 1.0,
        trial: bool = False,
        validation: Sequence[tuple[Task, PromptReader]] | None = None,
        begin: Callable[[int], object] | None = None,
        about: str = "",
    ) -> None:
        self.parts, self.parameters, self.seed = list(parts), list(parameters), seed
        self.validation, self.begin, self.about = self.parts if validation is None else list(validation), begin, about
        self.lr_factor, self.trial, self.broke = lr_factor, trial, False
        self.name = " + ".join(task.name for task, _ in self.parts)
        self.rows: list[tuple[Tokens, Tokens, PromptReader]] = []
        self._labels: dict[str, list[Tokens]] = {}
        for task, reader in self.parts:
            rows = task.examples("train")
            sources = encode_examples(backbone, rows, recipe.max_input_length, f"task {task.name!r} (train)")
            words = self._labels[task.name] = label_tokens(backbone, task)
            if recipe.label_padding:
                longest = max(map(len, words))
                words = [(*word, *[backbone.pad_id] * (longest - len(word))) for word in words]
                self._labels[task.name] = words
            self.rows += [(source, words[row.label], reader) for source, row in zip(sources, rows, strict=True)]
        self.order = batches([len(source) for source, *_ in self.rows], recipe.batch_size, seed)
        self.total = recipe.total_steps(len(self.rows))
        self.losses: list[float] = []
        self.best: list[Tensor] | None = None
        self.best_score = -math.inf
        self.best_step = 0
        self.stale = 0
        self.done = False
        self.said: tuple[str, ...] | None = None  # label words that the best checkpoint says, if that can be judged

    def take(self) -> list[tuple[Tokens, Tokens, PromptReader]]:
        if self.begin is not None:
            self.begin(len(self.losses))
        return [self.rows[i] for i in next(self.order)]

    def result(self) -> list[Tensor]:
        """The parameters of the best checkpoint, or the last where none was chosen."""
        return [parameter.detach() for parameter in self.parameters] if self.best is None else self.best

    def consider(self, scores: Sequence[Scores], value: float, recipe: Recipe) -> None:
        """Keep the current values if their validation is the best so far; stop when patience ends."""
        if value > self.best_score or self.best is None:
            self.best = [parameter.detach().clone() for parameter in self.parameters]
            self.best_score, self.best_step, self.stale, self.said = value, len(self.losses), 0, None
            if all(part.n >= 10 and part.majority < 1.0 for part in scores):
                words = {w for part in scores for w in part.predictions["predicted"].to_pylist() if w is not None}
                self.said = tuple(sorted(words))
        else:
            self.stale += 1
            self.done |= recipe.patience is not None and self.stale >= recipe.patience

    def padded_loss(self, backbone: Backbone, recipe: Recipe) -> float:
        """Validation loss with label padding in it, nats per token (quirk 3)."""
        total, tokens = 0.0, 0
        for task, reader in self.validation:
            rows = task.examples("validation")
            sources = encode_examples(backbone, rows, recipe.max_input_length)
            targets = [self._labels[task.name][row.label] for row in rows]
            for part in chunks([reader.num_tokens + len(row) for row in sources], TOKEN_BUDGET):
                mine = [sources[i] for i in part]
                with torch.no_grad():
                    bank, index = assemble([reader], [reader] * len(part), mine)
                    total += float(backbone.nll(bank, index, mine, [targets[i] for i in part]).sum())
            tokens += sum(map(len, targets))
        return total / tokens

    def complaints(self) -> Iterator[str]:
        """What a user should hear about a run that ended without an error."""
        if self.trial or not self.parameters:
            return
        tenth = max(1, len(self.losses) // 10)
        before, after = (sum(part) / tenth for part in (self.losses[:tenth], self.losses[-tenth:]))
        if len(self.losses) >= 20 and after > 0.98 * before and after > 0.05:
            yield (
                f"the loss of {self.name!r} stayed flat ({before:.3f} to {after:.3f} in {len(self.losses)} "
                "steps); try another lr or more steps"
            )
        if self.said is not None and not self.said:
            yield f"the prompt of {self.name!r} says no label word at all; try another lr or more steps"
        if self.said is not None and len(self.said) == 1:
            yield f"the prompt of {self.name!r} predicts one class only ({self.said[0]!r})"


def _step(backbone: Backbone, runs: Sequence[Run], recipe: Recipe) -> list[float]:
    """One forward and backward for every run; leaves `.grad` on each parameter, returns the losses."""
    sources: list[Tokens] = []
    targets: list[Tokens] = []
    readers: list[PromptReader] = []
    index: list[int] = []
    weight: list[float] = []
    for k, run in enumerate(runs):
        batch = run.take()
        tokens = sum(len(target) for _, target, _ in batch)
        for source, target, reader in batch:
            sources.append(source)
            targets.append(target)
            readers.append(reader)
            index.append(k)
            weight.append(1.0 / tokens)  # a batch's loss is the mean over its target tokens
    losses = torch.zeros(len(runs))
    distinct = [reader for run in runs for _, reader in run.parts]
    autocast: AbstractContextManager[object] = nullcontext()
    if recipe.precision == "bf16":
        autocast = torch.autocast(backbone.device_type, torch.bfloat16)
    lengths = [readers[i].num_tokens + len(row) for i, row in enumerate(sources)]
    for part in chunks(lengths, backbone.training_positions):
        mine = [sources[i] for i in part]
        with autocast:
            bank, rows = assemble(distinct, [readers[i] for i in part], mine)
            nll = backbone.nll(bank, rows, mine, [targets[i] for i in part])
        share = nll * torch.tensor([weight[i] for i in part], device=nll.device)
        share.sum().backward()
        losses.index_add_(0, torch.tensor([index[i] for i in part]), share.detach().cpu())
    return losses.tolist()


def _check_finite(run: Run, step: int, lr: float) -> None:
    # a batch without rows of one of several targets leaves that target's prompt without a gradient
    gradients = [parameter.grad for parameter in run.parameters if parameter.grad is not None]
    if not math.isfinite(run.losses[-1]) or not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise TrainingError(
            f"training {run.name!r} broke at step {step + 1}: the loss or its gradient is not finite",
            got=f"loss {run.losses[-1]} at lr {lr:g}",
            fix="lower lr, or use precision fp32",
        )


def embedding_rms(backbone: Backbone) -> float:
    """Root mean square of a model's input embeddings."""
    return float(backbone.embeddings().float().square().mean().sqrt())


@overload
def fit(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    inits: SoftPrompt,
    recipe: Recipe | None = ...,
    *,
    seeds: Sequence[int] | None = ...,
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
    seeds: Sequence[int] | None = ...,
    callback: Callback | None = ...,
    checkpoint: Path | None = ...,
) -> list[SoftPrompt]: ...
def fit(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    inits: SoftPrompt | Sequence[SoftPrompt],
    recipe: Recipe | None = None,
    *,
    seeds: Sequence[int] | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> SoftPrompt | list[SoftPrompt]:
    """Tune one prompt, or a bank of prompts together, on a frozen model (eq. 1).

    Args:
        tasks: one task for all prompts, or one a prompt; rows come from its `train` split, the best
            checkpoint is chosen on its `validation` split.
        inits: where to start; a prompt, or a sequence of prompts of one shape.
        recipe: how; by default the paper's.
        seeds: data-order seed of each prompt; by default `recipe.seed` for all.
        callback: called with a `Progress` after every step; by default a live bar on a terminal.
        checkpoint: a file for the state of training, written about once a minute; where it exists, training
            goes on from it and gives, bit for bit, what an uninterrupted one would. Deleted at the end.

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
    runs = []
    for task, init, seed in zip(task_of, start_of, seed_of, strict=True):
        parameter = Parameter(init.tensor)
        runs.append(Run([(task, SharedPrompt(parameter))], [parameter], backbone, recipe, seed))
    train(backbone, runs, recipe, callback=callback, checkpoint=checkpoint)
    tuned = [
        init.tuned_to(run.result()[0], task.name, task.fingerprint)
        for run, init, task in zip(runs, start_of, task_of, strict=True)
    ]
    return tuned[0] if isinstance(inits, SoftPrompt) else tuned


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
            if recipe.select == "f1" and len(task.labels) != 2:
                raise TpvError(f"select 'f1' needs two labels, {task.name!r} has {len(task.labels)}")
            if recipe.select in ("pearson", "spearman") and not task.spec.numbers:
                raise TpvError(
                    f"select {recipe.select!r} needs label words that are numbers",
                    got=f"task {task.name!r}",
                    fix="select by loss or exact_match",
                )
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
            _loop(backbone, runs, recipe, report, _Checkpoint(checkpoint, runs, recipe) if checkpoint else None)
    finally:
        backbone.set_dropout(False)
    for run in runs:
        for complaint in run.complaints():
            warnings.warn(complaint, TpvWarning, stacklevel=3)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)


STATE = ("losses", "best_score", "best_step", "stale", "done", "said")  # of a run, beside its tensors


class _Checkpoint:
    """The state of a bank on disk: enough to go on as if nothing had happened."""

    def __init__(self, path: Path, runs: Sequence[Run], recipe: Recipe) -> None:
        self.path, self.runs, self.saved = path, runs, time.monotonic()
        digest = hashlib.sha256(json.dumps(asdict(recipe)).encode())
        for run in runs:
            digest.update(json.dumps([run.seed, [task.fingerprint for task, _ in run.parts], run.about]).encode())
            for parameter in run.parameters:
                digest.update(parameter.detach().numpy().tobytes())
        self.signature = digest.hexdigest()  # before training: of what the parameters start from

    def due(self) -> bool:
        return time.monotonic() - self.saved >= CHECKPOINT_SECONDS

    def save(self, optimizer: torch.optim.Optimizer, step: int, score: float | None, dropout: bool) -> None:
        tensors = {"rng": torch.random.get_rng_state()} if dropout else {}
        if dropout and torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        state: list[dict[str, Any]] = []
        for k, run in enumerate(self.runs):
            for i, parameter in enumerate(run.parameters):
                tensors[f"{k}.{i}.value"] = parameter.detach()
                for name, value in optimizer.state[parameter].items():
                    tensors[f"{k}.{i}.adam.{name}"] = value
                if run.best is not None:
                    tensors[f"{k}.{i}.best"] = run.best[i]
            state.append({name: getattr(run, name) for name in STATE})
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        words = json.dumps({"step": step, "score": score, "runs": state})
        metadata = {"signature": self.signature, "state": words, "sha256": self._seal(words, tensors)}
        self.saved = time.monotonic()
        try:
            with atomic_write(self.path) as part:
                save_file(tensors, part, metadata)
        except (TpvError, SafetensorError, OSError) as error:  # training itself goes on
            warnings.warn(f"no checkpoint could be written: {error}", TpvWarning, stacklevel=2)

    def _seal(self, words: str, tensors: Mapping[str, Tensor]) -> str:
        """sha256 of all that a checkpoint holds: a flipped bit would train on and never be noticed."""
        digest = hashlib.sha256(f"{self.signature}{words}".encode())
        for name in sorted(tensors):
            value = tensors[name]
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(tensor_bytes(value.detach().cpu().reshape(-1)))
        return digest.hexdigest()

    def load(self, optimizer: torch.optim.Optimizer, dropout: bool) -> tuple[int, float | None]:
        """Set the runs and the optimiser to the saved state; the step to go on at and the last score.

        Raises:
            CheckpointError: it does not read, was altered, or belongs to another training.
        """
        if not self.path.exists():
            return 0, None
        try:
            with safe_open(regular(self.path), "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            whole = self._seal(metadata.get("state", ""), tensors) == metadata.get("sha256")
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"checkpoint {self.path} does not read", got=str(error), fix="delete it") from None
        if metadata.get("signature") != self.signature:
            raise CheckpointError(f"checkpoint {self.path} belongs to another training", fix="delete it")
        if not whole:
            raise CheckpointError(f"checkpoint {self.path} is damaged", fix="delete it")
        state = json.loads(metadata["state"])
        for k, (run, fields) in enumerate(zip(self.runs, state["runs"], strict=True)):
            for name, value in fields.items():
                setattr(run, name, tuple(value) if isinstance(value, list) and name == "said" else value)
            for i, parameter in enumerate(run.parameters):
                parameter.data.copy_(tensors[f"{k}.{i}.value"])
                prefix = f"{k}.{i}.adam."
                optimizer.state[parameter] = {
                    name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
                }
            if f"{k}.0.best" in tensors:
                run.best = [tensors[f"{k}.{i}.best"] for i in range(len(run.parameters))]
            for _ in run.losses:
                next(run.order)
        if dropout:
            torch.random.set_rng_state(tensors["rng"])
            if "rng.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["rng.cuda"])
        return state["step"], state["score"]


def _validate(backbone: Backbone, runs: Sequence[Run], recipe: Recipe) -> float:
    """Score the validation splits of these runs, let each keep what is best; mean exact match."""
    backbone.set_dropout(False)
    parts = [part for run in runs for part in run.validation]
    with torch.no_grad():
        scores = iter(evaluate_readers(backbone, parts, "validation", recipe.max_input_length, tell=False))
    matches: list[float] = []
    for run in runs:
        mine = [next(scores) for _ in run.validation]
        rows = sum(part.n for part in mine)
        if recipe.select == "loss" and recipe.label_padding:
            value = -run.padded_loss(backbone, recipe)
        elif recipe.select == "loss":
            value = -sum(part.loss * part.n for part in mine) / rows
        else:
            value = sum(part.metric(recipe.select) * part.n for part in mine) / rows
        run.consider(mine, value, recipe)
        matches += [part.exact_match for part in mine]
    backbone.set_dropout(recipe.dropout)
    return sum(matches) / len(matches)


def _loop(
    backbone: Backbone,
    runs: Sequence[Run],
    recipe: Recipe,
    report: Callable[[Progress], object],
    checkpoint: _Checkpoint | None,
) -> None:
    groups = [{"params": run.parameters} for run in runs]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=recipe.weight_decay, foreach=True)
    total = max(run.total for run in runs)
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
        due = [run for run in active if (step + 1) % recipe.eval_every == 0 or step + 1 == run.total]
        due = [run for run in due if run.validation]  # those without are not chosen by any
        if due and recipe.select != "last":
            score = _validate(backbone, due, recipe)
        for run in active:
            run.done |= step + 1 >= run.total
        if checkpoint and checkpoint.due() and step + 1 < total:
            checkpoint.save(optimizer, step + 1, score, recipe.dropout)
        report(Progress(step + 1, total, sum(losses) / len(losses), score, time.perf_counter() - started))
