"""Predict and score: exact match without a generation loop, for one prompt or a bank of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import overload

import pyarrow as pa
import torch
from torch import Tensor

from tpv import metrics
from tpv.backbones import Backbone, Tokens
from tpv.errors import IncompatibleError, TpvError
from tpv.tasks import Example, Task
from tpv.vectors import PromptMatrix, SoftPrompt, stack

MAX_INPUT_LENGTH = 256
TOKEN_BUDGET = 16384  # prompt and text positions in one forward pass


@dataclass(frozen=True)
class Scores:
    """How one prompt does on one task. All but `loss` and `n` are shares in [0, 1].

    Attributes:
        exact_match: output is exactly the gold label word.
        macro_f1: unweighted mean F1 over classes.
        positive_f1: F1 of the positive class, binary tasks only.
        invalid_rate: output is no label word.
        majority: exact match of always saying the commonest gold label.
        loss: mean negative log-likelihood of the gold label per token, in nats.
        n: number of examples.
        predictions: one row an example: `example`, `gold`, `predicted` (null where invalid),
            `log_probs` (one a label word, in the order of the schema metadata's `labels`).
    """

    exact_match: float
    macro_f1: float
    positive_f1: float | None
    invalid_rate: float
    majority: float
    loss: float
    n: int
    predictions: pa.Table = field(repr=False, compare=False)

    def metric(self, name: str) -> float:
        """A score by the name task files use: `exact_match`, `macro_f1`, `f1`, or `loss`."""
        value = self.positive_f1 if name == "f1" else getattr(self, name, None)
        if not isinstance(value, float):
            raise TpvError(f"metric {name!r} is not defined here", expected="exact_match, macro_f1, f1 (two labels)")
        return value


def label_tokens(backbone: Backbone, task: Task) -> list[Tokens]:
    """Token ids of a task's label words.

    Raises:
        TpvError: two label words that the tokenizer writes the same way.
    """
    tokens = [backbone.encode_target(word) for word in task.labels]
    for i, row in enumerate(tokens):
        if row in tokens[:i]:
            raise TpvError(
                f"labels {task.labels[tokens.index(row)]!r} and {task.labels[i]!r} of task {task.name!r} are the "
                f"same tokens to {backbone.identity.name}", fix="choose label words that differ",
            )  # fmt: skip
    return tokens


def check_bank(backbone: Backbone, prompts: Sequence[SoftPrompt]) -> Tensor:
    """The bank [K, P, H] of these prompts, if they belong to this model.

    Raises:
        IncompatibleError: a prompt of another model, or of another shape than the first.
    """
    for prompt in prompts:
        if not isinstance(prompt, SoftPrompt):
            raise TpvError("a model reads prompts", expected="SoftPrompt", got=type(prompt).__name__,
                           fix="add a vector to a prompt first")  # fmt: skip
        if prompt.model.fingerprint != backbone.identity.fingerprint:
            raise IncompatibleError(
                "this prompt belongs to another model", expected=backbone.identity, got=prompt.model,
                fix="load the model it was made for",
            )  # fmt: skip
    return stack(prompts)


def paired(tasks: Task | Sequence[Task], count: int) -> list[Task]:
    """One task for all of `count` prompts, or as many tasks as prompts.

    Raises:
        TpvError: another number of tasks.
    """
    if isinstance(tasks, Task):
        return [tasks] * count
    if isinstance(tasks, str) or not all(isinstance(task, Task) for task in tasks):
        raise TpvError("tasks", expected="a Task, or a sequence of them", got=f"{tasks!r:.60}", fix="use tpv.load_task")
    if len(tasks) != count:
        raise TpvError("number of tasks", expected=f"1, or {count} as there are prompts", got=len(tasks))
    return list(tasks)


def chunks(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Indices sorted by cost and cut so that rows x largest cost stays within `budget` (at least 1 row)."""
    order = sorted(range(len(costs)), key=lambda i: costs[i], reverse=True)
    result: list[list[int]] = []
    for i in order:
        if result and (len(result[-1]) + 1) * costs[result[-1][0]] <= budget:
            result[-1].append(i)
        else:
            result.append([i])
    return result


def _check_length(max_input_length: object) -> None:
    good = isinstance(max_input_length, int) and not isinstance(max_input_length, bool)
    if not good or not 1 <= max_input_length < 2**31:  # type: ignore[operator]
        raise TpvError("max_input_length", expected="a whole number from 1 to 2^31", got=f"{max_input_length!r:.40}")


def _score_rows(
    backbone: Backbone, bank: Tensor, index: Sequence[int], sources: Sequence[Tokens], labels: Sequence[Tokens],
    advance: Callable[[int], object] | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Log-probabilities [N, C] and greedy labels [N] of many rows, like lengths together."""
    log_probs, greedy = torch.empty(len(sources), len(labels)), torch.empty(len(sources), dtype=torch.long)
    for part in chunks([bank.shape[1] + len(row) for row in sources], TOKEN_BUDGET):
        scores = backbone.score_labels(bank, torch.tensor([index[i] for i in part]), [sources[i] for i in part], labels)
        rows = torch.tensor(part)
        log_probs[rows], greedy[rows] = scores.log_probs, scores.greedy
        if advance:
            advance(len(part))
    return log_probs, greedy


def _scores(task: Task, rows: Sequence[Example], log_probs: Tensor, greedy: Tensor, lengths: Tensor) -> Scores:
    gold, predicted = [row.label for row in rows], greedy.tolist()
    truth = torch.tensor(gold)
    if not torch.isfinite(log_probs).all():
        raise TpvError(f"the model's scores on task {task.name!r} are not finite", fix="use precision fp32")
    table = pa.table(
        {
            "example": [row.id for row in rows],
            "gold": [row.target for row in rows],
            "predicted": pa.array([None if p == metrics.INVALID else task.labels[p] for p in predicted], pa.string()),
            "log_probs": pa.FixedSizeListArray.from_arrays(log_probs.flatten().numpy(), log_probs.shape[1]),
        }
    ).replace_schema_metadata({"task": task.name, "labels": "\x1f".join(task.labels)})
    return Scores(
        exact_match=metrics.exact_match(gold, predicted),
        macro_f1=metrics.macro_f1(gold, predicted),
        positive_f1=metrics.positive_f1(gold, predicted, task.spec.positive) if len(task.labels) == 2 else None,
        invalid_rate=metrics.invalid_rate(gold, predicted),
        majority=metrics.majority(gold, predicted),
        loss=float(-log_probs[torch.arange(len(gold)), truth].sum() / lengths[truth].sum()),
        n=len(rows),
        predictions=table,
    )


@overload
def evaluate(
    backbone: Backbone, tasks: Task | Sequence[Task], prompts: SoftPrompt, split: str = ..., *,
    max_input_length: int = ..., advance: Callable[[int], object] | None = ...,
) -> Scores: ...  # fmt: skip
@overload
def evaluate(
    backbone: Backbone, tasks: Task | Sequence[Task], prompts: Sequence[SoftPrompt], split: str = ..., *,
    max_input_length: int = ..., advance: Callable[[int], object] | None = ...,
) -> list[Scores]: ...  # fmt: skip
def evaluate(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    prompts: SoftPrompt | Sequence[SoftPrompt],
    split: str = "test",
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
    advance: Callable[[int], object] | None = None,
) -> Scores | list[Scores]:
    """Score one prompt, or a sequence of them together, on a split.

    An example counts as a match exactly when greedy decoding would emit its label word and stop;
    this is decided from one encoder pass and one short decoder pass over the label words.

    Args:
        tasks: one task for all prompts, or one a prompt.
        prompts: a prompt, or a sequence of prompts of one shape.
        split: `train`, `validation` or `test`.
        max_input_length: texts are cut at this many tokens.
        advance: called with the number of rows done, for a progress bar.

    Returns:
        `Scores` for one prompt, a list in the order of the prompts otherwise.

    Raises:
        TpvError: a prompt of another model or shape, an empty split, labels the model cannot tell apart.
    """
    bank_of = [prompts] if isinstance(prompts, PromptMatrix) else list(prompts)
    bank = check_bank(backbone, bank_of)
    task_of = paired(tasks, len(bank_of))
    _check_length(max_input_length)
    results: dict[int, Scores] = {}
    members: dict[int, list[int]] = {}
    for k, task in enumerate(task_of):
        members.setdefault(id(task), []).append(k)
    for group in members.values():
        task = task_of[group[0]]
        rows = task.examples(split)
        labels = label_tokens(backbone, task)
        sources = backbone.encode_sources([row.source for row in rows], max_input_length)
        index = [k for k in group for _ in rows]
        log_probs, greedy = _score_rows(backbone, bank, index, sources * len(group), labels, advance)
        lengths = torch.tensor([len(row) for row in labels])
        for position, k in enumerate(group):
            part = slice(position * len(rows), (position + 1) * len(rows))
            results[k] = _scores(task, rows, log_probs[part], greedy[part], lengths)
    ordered = [results[k] for k in range(len(bank_of))]
    return ordered[0] if isinstance(prompts, SoftPrompt) else ordered


def predict(
    backbone: Backbone,
    prompt: SoftPrompt,
    task: Task,
    texts: Sequence[str],
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> pa.Table:
    """Label new texts: a table `source`, `predicted` (null where greedy decoding says no label word),
    `log_probs` (one a label word, order in the schema metadata's `labels`).

    Args:
        task: gives the label words; its template is not applied, `texts` go in as they are.

    Raises:
        TpvError: no texts, an empty text, or a prompt of another model.
    """
    bank = check_bank(backbone, [prompt])
    _check_length(max_input_length)
    if isinstance(texts, str):
        raise TpvError("texts to label", expected="a sequence of texts", got="one text", fix="put it in a list")
    if not texts:
        raise TpvError("texts to label", expected="at least one", got="none")
    for number, text in enumerate(texts):
        if not text.strip():
            raise TpvError(f"text {number + 1} is empty", fix="fill it in or drop it")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise TpvError(f"text {number + 1} is not UTF-8", fix="convert it first")
    sources = backbone.encode_sources(texts, max_input_length)
    labels = label_tokens(backbone, task)
    log_probs, greedy = _score_rows(backbone, bank, [0] * len(texts), sources, labels, None)
    return pa.table(
        {
            "source": list(texts),
            "predicted": pa.array([task.labels[p] if p >= 0 else None for p in greedy.tolist()], pa.string()),
            "log_probs": pa.FixedSizeListArray.from_arrays(log_probs.flatten().numpy(), log_probs.shape[1]),
        }
    ).replace_schema_metadata({"task": task.name, "labels": "\x1f".join(task.labels)})
