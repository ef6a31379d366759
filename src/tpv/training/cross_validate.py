"""Cross-validation of a tuning: every training row is judged by a prompt that was not trained on it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pyarrow as pa

from tpv.errors import CutWarning, TpvError
from tpv.evaluation.score import evaluate
from tpv.models import Backbone
from tpv.outputs import output_of
from tpv.outputs.ranking import Calibrator, fit_calibrator
from tpv.outputs.scores import LabelTable, Scores
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Example, Task
from tpv.tasks.task import stratified_folds
from tpv.training.fit import PromptMethod, fit
from tpv.training.recipe import Recipe


@dataclass(frozen=True)
class CrossValidation:
    """What cross-validation found.

    Attributes:
        scores: of all training rows, each judged by the prompt that did not learn from it.
        folds: of each fold's rows alone.
        calibrator: fitted to all of them; for the prompt that the same training gives on all rows. None for text.
    """

    scores: Scores
    folds: tuple[Scores, ...]
    calibrator: Calibrator | None


def cross_validate(
    backbone: Backbone,
    task: Task,
    init: SoftPrompt,
    recipe: Recipe | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    method: str | PromptMethod = "prompt_tuning",
    parameters: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
) -> CrossValidation:
    """How well a tuning does on rows that it did not see, from the training rows alone.

    One prompt is tuned without each fold, all in one bank, and judges that fold. Use it where there are too few rows to
    keep some for a test: 50 rows tell more than the 5 that would be held out of them.

    Args:
        init: the initialization of every prompt.
        recipe: how to train; no checkpoint is selected.
        folds: how many parts the training rows are cut into, class distribution kept; at most as many as rows.
        seed: seed of the draw of the folds.
        method: see `tpv.fit`.
        parameters: see `tpv.fit`.
        callback: see `tpv.fit`.

    Raises:
        TpvError: fewer than 2 folds or rows; what `tpv.fit` raises.
    """
    prompts, held = fold_prompts(
        backbone, task, init, recipe, folds, seed, method=method, parameters=parameters, callback=callback
    )
    length = (recipe or Recipe()).max_input_length
    parts = [replace(task, splits={"test": tuple(rows)}) for rows in held]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)  # see `fold_prompts`
        found = evaluate(backbone, parts, prompts, "test", max_input_length=length)
    about = {
        key: value for key, value in found[0].predictions.schema.metadata.items() if key not in (b"scored", b"split")
    }
    table = pa.concat_tables([scores.predictions.replace_schema_metadata(about) for scores in found])
    scores = output_of(task.spec).scores(table)
    calibrator = None
    if task.labels:
        judged = LabelTable.of(table)
        calibrator = fit_calibrator(task.labels, judged.log_probs, judged.gold.tolist())
    return CrossValidation(scores, tuple(found), calibrator)


def fold_prompts(
    backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe | None, folds: int, seed: int, **how: Any
) -> tuple[list[SoftPrompt], list[Sequence[Example]]]:
    """A prompt tuned without each fold, and the rows of the fold; see `cross_validate`."""
    rows = task.examples("train")
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= len(rows):
        raise TpvError("folds", expected=f"a whole number from 2 to {len(rows)}, the training rows", got=folds)
    part = stratified_folds([row.label for row in rows], folds, Random(f"folds {seed}"))
    others = [
        replace(task, splits={"train": tuple(row for i, row in enumerate(rows) if part[i] != k)}) for k in range(folds)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)  # what is truncated is told of the training on all rows
        prompts = fit(backbone, others, [init] * folds, replace(recipe or Recipe(), select="last"), **how)
    return prompts, [[rows[i] for i in range(len(rows)) if part[i] == k] for k in range(folds)]
