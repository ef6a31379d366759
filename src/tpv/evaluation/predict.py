"""Label new texts."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.encode import encode_texts
from tpv.evaluation.score import score_rows
from tpv.models import Backbone
from tpv.outputs.label import label_tokens, list_column
from tpv.outputs.scores import SEPARATOR
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Task


def predict(
    backbone: Backbone,
    task: Task,
    prompt: SoftPrompt,
    texts: Sequence[str],
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> pa.Table:
    """Label new texts.

    Returns:
        A table with a row per text: `source`, `predicted` (null where greedy decoding says no label word) and
        `log_probs` (one per label word, nats, in the order of the schema metadata's `labels`).

    Args:
        task: gives the label words; its template is not applied, so `texts` are read as they are.

    Raises:
        TpvError: no texts, an empty text, or a prompt of another model.
    """
    if not isinstance(task, Task):
        raise TpvError(
            "task to predict",
            expected="a Task",
            got=type(task).__name__,
            fix="the order is predict(backbone, task, prompt, texts)",
        )
    bank = check_bank(backbone, [prompt])
    sources = encode_texts(backbone, texts, task, max_input_length)
    labels = label_tokens(backbone, task)
    log_probs, greedy = score_rows(backbone, [SharedPrompt(bank[0])], [0] * len(texts), sources, labels, None)
    return pa.table(
        {
            "source": list(texts),
            "predicted": pa.array([task.labels[p] if p >= 0 else None for p in greedy.tolist()], pa.string()),
            "log_probs": list_column(log_probs),
        }
    ).replace_schema_metadata({"task": task.name, "labels": SEPARATOR.join(task.labels)})
