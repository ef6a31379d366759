"""Which vectors of a library suit a few labelled rows, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tpv.evaluation.each import each_on_all
from tpv.models import Backbone
from tpv.outputs.ranking import gold_losses
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Task


class Ranked(NamedTuple):
    """A source: its name, the mean negative log-likelihood of the gold labels under its prompt, and its accuracy."""

    name: str
    loss: float
    accuracy: float


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
    said = each_on_all(backbone, task, list(prompts.values()), rows, max_input_length)
    return ranked(dict(zip(prompts, said, strict=True)), gold)


def ranked(said: Mapping[str, NDArray[np.float64]], gold: NDArray[np.int64]) -> list[Ranked]:
    """Sources by what each says to the same rows: probabilities [N, C] by name, and the gold labels [N]."""
    found = [
        Ranked(name, float(gold_losses(mine, gold).mean()), float((mine.argmax(1) == gold).mean()))
        for name, mine in said.items()
    ]
    return sorted(found, key=lambda one: (one.loss, one.name))
