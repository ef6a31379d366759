"""Rows that read different prompts in one forward pass: readers, banks and passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tpv.errors import IncompatibleError, TpvError
from tpv.models import Backbone, Tokens
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.matrix import stack
from tpv.tasks import Task


class PromptReader(Protocol):
    """What says which prompt a row of input reads: one for all, or one made from the row's text."""

    @property
    def num_tokens(self) -> int:
        """P, the rows of a prompt."""
        ...

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """A bank [M, P, H] and, for each of these N inputs, the index [N] of its prompt in the bank."""
        ...


class SharedPrompt:
    """One prompt [P, H] for every row."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def num_tokens(self) -> int:
        return self.tensor.shape[0]

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        return self.tensor[None], torch.zeros(len(sources), dtype=torch.long)


def assemble(
    distinct: Sequence[PromptReader], readers: Sequence[PromptReader], sources: Sequence[Tokens]
) -> tuple[Tensor, Tensor]:
    """One bank [M, P, H] for rows that read different prompts, and the index [N] into it.

    Args:
        distinct: every reader that may occur, in the order of the bank.
        readers: the reader of each row.
        sources: the rows.
    """
    members: dict[int, list[int]] = {}
    for row, reader in enumerate(readers):
        members.setdefault(id(reader), []).append(row)
    index = torch.empty(len(readers), dtype=torch.long)
    banks: list[Tensor] = []
    size = 0
    for reader in distinct:
        rows = members.get(id(reader))
        if rows:
            bank, local = reader.read([sources[i] for i in rows])
            index[torch.tensor(rows)] = size + local
            banks.append(bank)
            size += len(bank)
    return torch.cat(banks), index


def check_bank(backbone: Backbone, prompts: Sequence[SoftPrompt]) -> Tensor:
    """The bank [K, P, H] of these prompts, if they belong to this model.

    Raises:
        IncompatibleError: a prompt of another model, or of another shape than the first.
    """
    for prompt in prompts:
        if not isinstance(prompt, SoftPrompt):
            raise TpvError(
                "a model reads prompts",
                expected="SoftPrompt",
                got=type(prompt).__name__,
                fix="add a vector to a prompt first",
            )
        known = backbone.identity  # a file can name the right model and hold rows of another width
        if (prompt.model.fingerprint, prompt.tensor.shape[1]) != (known.fingerprint, known.hidden_size):
            raise IncompatibleError(
                "this prompt belongs to another model",
                expected=known,
                got=prompt.model,
                fix="load the model it was made for",
            )
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


def chunks(costs: Sequence[int], budget: int, worth: int) -> list[list[int]]:
    """Indices sorted by cost and cut into passes of rows x largest cost, within `budget` (at least 1 row).

    Args:
        worth: a pass also ends where this saves its other rows more positions of padding than these.
    """
    order = sorted(range(len(costs)), key=lambda i: costs[i], reverse=True)
    result: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = costs[order[start]]
        full = min(len(order), start + max(1, budget // max(1, longest)))
        end = start + 1
        while end < full and (longest - costs[order[end]]) * (full - end) <= worth:
            end += 1
        result.append(order[start:end])
        start = end
    return result
