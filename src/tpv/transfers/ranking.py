"""Which vectors of a library suit a few labelled rows, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tpv.evaluation.answers import score_rows
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.encode import encode_examples
from tpv.models import Backbone
from tpv.outputs.label import label_tokens
from tpv.outputs.ranking import gold_losses, softmax
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Example, Task


class Ranked(NamedTuple):
    """A source: its name, the mean negative log-likelihood of the gold labels under its prompt, and its accuracy."""

    name: str
    loss: float
    accuracy: float


def label_log_probs(
    backbone: Backbone,
    task: Task,
    prompts: Sequence[SoftPrompt],
    reads: Sequence[int],
    rows: Sequence[Example],
    max_input_length: int,
) -> NDArray[np.float64]:
    """Log-probability of every label word, [N, C], of N rows that each read one of the prompts; in one bank."""
    bank = check_bank(backbone, prompts)
    readers = [SharedPrompt(prompt) for prompt in bank]
    sources = encode_examples(backbone, rows, max_input_length)
    log_probs, _ = score_rows(backbone, readers, reads, sources, label_tokens(backbone, task), None)
    return log_probs.double().numpy()


def each_on_all(
    backbone: Backbone, task: Task, prompts: Sequence[SoftPrompt], rows: Sequence[Example], max_input_length: int
) -> list[NDArray[np.float64]]:
    """Probabilities [N, C] of the labels of N rows under each of the prompts, all in one bank."""
    reads = [k for k in range(len(prompts)) for _ in rows]
    scores = label_log_probs(backbone, task, prompts, reads, [*rows] * len(prompts), max_input_length)
    return [softmax(mine) for mine in scores.reshape(len(prompts), len(rows), -1)]


def rank_sources(
    backbone: Backbone,
    task: Task,
    prompts: Mapping[str, SoftPrompt],
    *,
    split: str = "train",
    max_input_length: int = 256,
) -> list[Ranked]:
    """Rank prompts by the likelihood of labelled rows under each, the likeliest first: one pass, nothing is trained.

    The likelihood is that of the gold label among the task's labels (a softmax over their log-probabilities).

    Args:
        prompts: by name, such as an initialization plus each vector of a library.
        split: the labelled rows.

    Raises:
        TpvError: no rows, prompts of another model.
    """
    rows = task.examples(split)
    gold = np.array([row.label for row in rows])
    found = []
    for name, mine in zip(
        prompts, each_on_all(backbone, task, list(prompts.values()), rows, max_input_length), strict=True
    ):
        right = float((mine.argmax(1) == gold).mean())
        found.append(Ranked(name, float(gold_losses(mine, gold).mean()), right))
    return sorted(found, key=lambda one: (one.loss, one.name))
