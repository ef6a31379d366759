"""Fit a calibrator to labelled rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.answers import label_answers
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.encode import encode_examples
from tpv.models import Backbone
from tpv.outputs.ranking import Calibrator, checked_normalize, fit_calibrator, normalized
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Example, Task


def calibrate(
    backbone: Backbone,
    task: Task,
    prompt: SoftPrompt,
    *,
    split: str = "validation",
    normalize: str | None = None,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> Calibrator:
    """A calibrator of a prompt's probabilities: a temperature and a bias per label, fitted to a split.

    Where there are too few rows to keep some from training, see `tpv.cross_calibrate`.

    Args:
        split: rows that the prompt was not trained on.
        normalize: see `tpv.evaluate`; the calibrator keeps it.

    Raises:
        TpvError: an empty split, a prompt of another model, a task without label words.
    """
    rows = task.examples(split)
    way = checked_normalize(normalize, None)
    scores = label_scores(backbone, task, prompt, rows, way, max_input_length)
    return fit_calibrator(task.labels, scores, [row.label for row in rows], way)


def label_scores(
    backbone: Backbone, task: Task, prompt: SoftPrompt, rows: Sequence[Example], normalize: str, max_input_length: int
) -> np.ndarray:
    """Normalized scores [N, C] of the label words, what a calibrator is fitted to."""
    if not task.labels:
        raise TpvError(f"task {task.name!r} to calibrate", expected="a task with label words", got="a text task")
    bank = check_bank(backbone, [prompt])
    sources = encode_examples(backbone, rows, max_input_length)
    (said,) = label_answers(backbone, task, [SharedPrompt(bank[0])], sources, normalize=normalize)
    context = None if said.context is None else said.context.numpy()
    return normalized(said.log_probs.numpy(), said.normalize, said.label_tokens.numpy(), context)
