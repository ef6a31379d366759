"""What trains in a bank, and what a training method is built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from tpv.evaluation.bank import PromptReader
from tpv.evaluation.encode import encode_examples
from tpv.models import Backbone, Tokens
from tpv.outputs import output_of
from tpv.outputs.scores import Scores, said_column
from tpv.tasks import Example, Task
from tpv.training.recipe import Recipe
from tpv.training.sampler import batches

LABEL_TOKENS = 16  # no label word has more


class TrainingRow(NamedTuple):
    """A row to train on: tokens in, tokens out, what reads its prompt, and the example it was made from."""

    source: Tokens
    target: Tokens
    reader: PromptReader
    example: Example

    @property
    def long_target(self) -> int:
        """See `long_target`."""
        return long_target(self.target)


def long_target(target: Tokens) -> int:
    """Positions that a target adds to a pass: those of label words are not counted, as they never were."""
    return max(0, len(target) - LABEL_TOKENS)


class Targets(Protocol):
    """What rows teach: the target tokens of each."""

    def __call__(self, backbone: Backbone, task: Task, rows: Sequence[Example], /) -> Sequence[Tokens]: ...


class Loss(Protocol):
    """What rows cost.

    Args:
        bank: prompts [M, P, H], differentiable.
        index: which of them each row reads, [N].
        rows: the rows.

    Returns:
        The loss of each row, [N], summed over its target tokens: a batch's loss is the sum over rows divided by the
        number of target tokens.
    """

    def __call__(self, backbone: Backbone, bank: Tensor, index: Tensor, rows: Sequence[TrainingRow], /) -> Tensor: ...


def gold_targets(backbone: Backbone, task: Task, rows: Sequence[Example]) -> Sequence[Tokens]:
    """The gold answers, as the task's output kind writes them."""
    return output_of(task.spec).targets(backbone, task, rows)


def likelihood(backbone: Backbone, bank: Tensor, index: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
    """Negative log-likelihood of each row's target, in nats: the default loss."""
    return backbone.nll(bank, index, [row.source for row in rows], [row.target for row in rows])


class Run:
    """One thing that trains in a bank: a prompt, or (ATTEMPT) prompts that share an attention.

    This and `PromptReader` are what a training method is built from: the method says which parameters train and which
    prompt a row reads, the loop does the rest.

    Args:
        parts: each task it trains on, with what reads a prompt for that task's rows. The rows of all
            parts are shuffled together.
        parameters: what the optimizer changes.
        seed: of the data order.
        lr_factor: its learning rate is this times the recipe's.
        trial: end this run alone, not the bank, where its loss or gradient is not finite, and complain of nothing.
        validation: the parts that checkpoints are chosen by; by default those it trains on.
        begin: called with the number of each step before its rows are read.
        about: what else decides the training, for its checkpoint to be known by.
        targets: what the rows of a task teach; by default what the task's output kind says.
        loss: what a row costs; by default the negative log-likelihood of its target.
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
        targets: Targets | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.parts, self.parameters, self.seed = list(parts), list(parameters), seed
        self.validation, self.begin, self.about = self.parts if validation is None else list(validation), begin, about
        self.lr_factor, self.trial, self.broke = lr_factor, trial, False
        self.name = " + ".join(task.name for task, _ in self.parts)
        self.targets, self.loss = targets or gold_targets, loss
        self.rows: list[TrainingRow] = []
        for task, reader in self.parts:
            rows = task.examples("train")
            sources = encode_examples(backbone, rows, recipe.max_input_length, f"task {task.name!r} (train)")
            taught = self.targets(backbone, task, rows)
            self.rows += [
                TrainingRow(source, target, reader, row)
                for source, target, row in zip(sources, taught, rows, strict=True)
            ]
        self.order = batches([len(row.source) for row in self.rows], recipe.batch_size, seed)
        self.total = recipe.total_steps(len(self.rows))
        self.losses: list[float] = []
        self.validations: list[tuple[int, float, float | None]] = []  # step, what it is selected by, exact match
        self.best: list[Tensor] | None = None
        self.best_score = -math.inf
        self.best_step = 0
        self.stale = 0
        self.done = False
        self.said: tuple[str, ...] | None = None  # label words that the best checkpoint says, if that can be judged

    @property
    def generates(self) -> bool:
        """Whether all it is validated on is text, which takes long to generate."""
        return all(output_of(task.spec).generated for task, _ in self.validation)

    def take(self) -> list[TrainingRow]:
        """The rows of the next step."""
        if self.begin is not None:
            self.begin(len(self.losses))
        return [self.rows[i] for i in next(self.order)]

    def result(self) -> list[Tensor]:
        """The parameters of the best checkpoint, or the last where none was chosen."""
        return [parameter.detach() for parameter in self.parameters] if self.best is None else self.best

    def restore(self) -> None:
        """Set the parameters to `result`."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.result(), strict=True):
                parameter.copy_(value)

    def consider(self, scores: Sequence[Scores], value: float, recipe: Recipe) -> None:
        """Keep the current values if their validation is the best so far; stop when patience ends."""
        if value > self.best_score or self.best is None:
            self.best = [parameter.detach().clone() for parameter in self.parameters]
            self.best_score, self.best_step, self.stale, self.said = value, len(self.losses), 0, None
            if (
                scores
                and all("said" in part.predictions.column_names for part in scores)
                and all(part.n >= 10 and part.majority < 1.0 for part in scores)
            ):
                words = {w for part in scores for w in said_column(part.predictions).to_pylist() if w is not None}
                self.said = tuple(sorted(words))
        else:
            self.stale += 1
            self.done |= recipe.patience is not None and self.stale >= recipe.patience

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
