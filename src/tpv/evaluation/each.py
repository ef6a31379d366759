"""The probabilities that several prompts give the labels of the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tpv.evaluation.answers import score_rows
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.encode import encode_examples
from tpv.models import Backbone
from tpv.outputs.label import label_tokens
from tpv.outputs.ranking import softmax
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Example, Task


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
