"""Find a learning rate: one short training per rate, all of them in one bank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.models import Backbone
from tpv.progress import Callback, training_bar
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.embeddings import embedding_rms
from tpv.tasks import Task
from tpv.training.loop import train
from tpv.training.recipe import Recipe
from tpv.training.run import Run

RATES = tuple(10 ** (exponent / 4) for exponent in range(-11, 1))  # times the RMS of the embeddings
STEPS = 40


@dataclass(frozen=True)
class LrTrial:
    """What one learning rate came to.

    Attributes:
        lr: the rate, constant after a warm-up of a tenth of the steps.
        first, last: mean training loss over the first and the last quarter of the steps, nats per target token;
            `last` is infinite where the training broke.
    """

    lr: float
    first: float
    last: float


def find_lr(
    backbone: Backbone,
    task: Task,
    init: SoftPrompt,
    recipe: Recipe | None = None,
    *,
    rates: Sequence[float] | None = None,
    steps: int | None = None,
    callback: Callback | None = None,
) -> list[LrTrial]:
    """Train from one initialization with many learning rates for a few steps, on the same batches; ascending by rate.

    The trial with the lowest `last` has the rate to take: `min(trials, key=lambda trial: trial.last).lr`.

    Args:
        recipe: batch size, clipping and the like; its `lr`, length and selection are not used.
        rates: by default twelve from 0.0018 to 1 times the RMS of the model's embeddings, 1.8 times apart.
        steps: optimizer steps of each; by default 40.
        callback: see `tpv.fit`.

    Raises:
        TpvError: no rates, or one that is no positive number; what `tpv.fit` raises.
    """
    check_bank(backbone, [init])
    rms, steps = embedding_rms(backbone), STEPS if steps is None else steps
    tried = sorted(rates if rates is not None else (rms * rate for rate in RATES))
    if not tried or not all(math.isfinite(rate) and rate > 0 for rate in tried):
        raise TpvError("learning rates to try", expected="positive numbers, at least one", got=list(tried))
    if steps < 4:
        raise TpvError("steps of a learning-rate search", expected="at least 4", got=steps)
    recipe = replace(
        recipe or Recipe(),
        lr=1.0,
        steps=steps,
        epochs=None,
        warmup_steps=steps // 10,
        schedule="constant",
        select="last",
    )
    runs = []
    for rate in tried:
        parameter = Parameter(init.tensor)
        part = (task, SharedPrompt(parameter))
        runs.append(Run([part], [parameter], backbone, recipe, recipe.seed, lr_factor=rate, trial=True))
    with nullcontext(callback) if callback else training_bar(f"trying {len(runs)} learning rates") as report:
        train(backbone, runs, recipe, callback=report)
    quarter = max(1, steps // 4)
    return [
        LrTrial(
            rate,
            sum(run.losses[:quarter]) / len(run.losses[:quarter]),
            math.inf if run.broke else sum(run.losses[-quarter:]) / quarter,
        )
        for rate, run in zip(tried, runs, strict=True)
    ]
