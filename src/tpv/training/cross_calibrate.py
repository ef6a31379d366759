"""Calibration where there are too few rows to keep any from training."""

from __future__ import annotations

import numpy as np

from tpv.evaluation.calibrate import label_scores
from tpv.models import Backbone
from tpv.outputs.ranking import Calibrator, checked_normalize, fit_calibrator
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Task
from tpv.training.cross_validate import fold_prompts
from tpv.training.recipe import Recipe


def cross_calibrate(
    backbone: Backbone,
    task: Task,
    init: SoftPrompt,
    recipe: Recipe | None = None,
    *,
    folds: int = 5,
    normalize: str | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> Calibrator:
    """A calibrator by cross-fitting: one prompt is tuned without each fold of the training rows, and judges that fold.

    So every row is judged by a prompt that was not trained on it. The prompts train together as one bank. Use it for
    the prompt that the same initialization and recipe give on all training rows.

    Args:
        init: the initialization of every prompt.
        recipe: how to train; no checkpoint is selected, since the rows to select by are those to calibrate on.
        folds: how many parts the training rows are cut into, class distribution kept; at most as many as rows.
        normalize: see `tpv.evaluate`.
        seed: of the draw of the folds.

    Raises:
        TpvError: fewer than 2 folds or rows; what `tpv.fit` raises.
    """
    way = checked_normalize(normalize, None)
    prompts, held = fold_prompts(backbone, task, init, recipe, folds, seed, callback=callback)
    length = (recipe or Recipe()).max_input_length
    scores = [
        label_scores(backbone, task, prompt, mine, way, length) for prompt, mine in zip(prompts, held, strict=True)
    ]
    return fit_calibrator(task.labels, np.concatenate(scores), [row.label for mine in held for row in mine], way)
