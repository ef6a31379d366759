"""Learned merges: the coefficients of frozen vectors, trained on a few rows.

A row reads init + sum_k a_k · tau_k, where only the few numbers a train: by gradient through the frozen model, or by a
gradient-free search as in LoraHub (Huang et al., 2023). An L1 penalty keeps vectors that do not help at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.each import each_on_all
from tpv.models import Backbone, Tokens
from tpv.outputs.ranking import gold_losses
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, matrices
from tpv.prompts.embeddings import embedding_rms
from tpv.tasks import Task
from tpv.training.loop import train
from tpv.training.recipe import Recipe
from tpv.training.run import Run, TrainingRow, likelihood

RATE = 0.05  # peak learning rate of coefficients, which are of the order of 1
PENALTY = 0.01  # nats per token for a coefficient of 1
SPREAD = 0.3  # standard deviation of the search's first steps


class CoefficientReader:
    """A `PromptReader` of an initialization plus frozen vectors with coefficients that train.

    Args:
        init: [P, H].
        vectors: [K, P, H].
        coefficients: [K], or one for each token, [K, P].
    """

    def __init__(self, init: Tensor, vectors: Tensor, coefficients: Tensor) -> None:
        self.init, self.vectors, self.coefficients = init, vectors, coefficients

    @property
    def num_tokens(self) -> int:
        return self.init.shape[0]

    def prompt(self) -> Tensor:
        """The prompt as it is now, [P, H]."""
        weights = self.coefficients if self.coefficients.ndim == 2 else self.coefficients[:, None]
        return self.init + (weights[:, :, None] * self.vectors).sum(0)

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        return SharedPrompt(self.prompt()).read(sources)


def learn_coefficients(
    backbone: Backbone,
    tasks: Sequence[Task],
    vectors: Sequence[TaskPromptVector],
    init: SoftPrompt,
    recipe: Recipe,
    *,
    way: Literal["gradient", "search"] = "gradient",
    per_token: bool = False,
    penalty: float = PENALTY,
    callback: Callback | None = None,
) -> list[Tensor]:
    """Coefficients of the vectors for each of the tasks, [K], or [K, P] with one for each token of the prompt.

    Args:
        tasks: whose training rows to learn from, one after the other in a bank (such as the folds of one task).
        init: what the vectors are added to.
        recipe: steps, batch size and seed; the learning rate is `RATE`, and no checkpoint is selected.
        way: `gradient`, or `search`: CMA-ES on the likelihood of the labels, without gradients.
        penalty: of L1, nats per token (per row in a search) for coefficients whose magnitudes add up to 1.

    Raises:
        TpvError: no vectors, vectors of another model, a search with one coefficient for each token.
    """
    if not vectors:
        raise TpvError("vectors to merge", expected="at least one", got="none")
    check_bank(backbone, [init + vectors[0]])
    stacked = torch.stack(matrices(list(vectors)))
    if way == "search":
        if per_token:
            raise TpvError("a search", expected="one coefficient for each vector", got="per_token")
        return [
            _searched(backbone, task, stacked, init, recipe, penalty, f"{recipe.seed} {k}")
            for k, task in enumerate(tasks)
        ]
    shape = (len(stacked), init.num_tokens) if per_token else (len(stacked),)
    rate = float(recipe.fitted(embedding_rms(backbone)).lr)
    found = [Parameter(torch.full(shape, 1.0 / len(stacked))) for _ in tasks]
    runs = []
    for task, coefficients in zip(tasks, found, strict=True):
        reader = CoefficientReader(init.tensor, stacked, coefficients)
        runs.append(
            Run(
                [(task, reader)],
                [coefficients],
                backbone,
                recipe,
                recipe.seed,
                loss=_penalized(coefficients, penalty),
                validation=[],
                lr_factor=RATE / rate,
            )
        )
    train(backbone, runs, recipe, callback=callback)
    return [coefficients.detach() for coefficients in found]


def _penalized(
    coefficients: Tensor, penalty: float
) -> Callable[[Backbone, Tensor, Tensor, Sequence[TrainingRow]], Tensor]:
    def loss(backbone: Backbone, bank: Tensor, index: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
        costs = likelihood(backbone, bank, index, rows)
        tokens = torch.tensor([len(row.target) for row in rows], device=costs.device)
        return costs + penalty * coefficients.abs().sum().to(costs.device) * tokens

    return loss


def _searched(
    backbone: Backbone, task: Task, vectors: Tensor, init: SoftPrompt, recipe: Recipe, penalty: float, seed: str
) -> Tensor:
    """CMA-ES, a population a step, each of it a prompt of one bank."""
    import cma

    rows = task.examples("train")
    gold = np.array([row.label for row in rows])
    start = np.full(len(vectors), 1.0 / len(vectors))
    number = int.from_bytes(seed.encode()[-6:], "little") % 2**31 + 1
    options = {"seed": number, "verbose": -9, "maxiter": recipe.steps or 20}
    search = cma.CMAEvolutionStrategy(start if len(start) > 1 else np.append(start, 0.0), SPREAD, options)

    def costs(population: Sequence[NDArray[np.float64]]) -> list[float]:
        chosen = torch.tensor(np.array(population)[:, : len(vectors)], dtype=torch.float32)
        prompts = [
            init.tuned_to(CoefficientReader(init.tensor, vectors, weights).prompt(), task.name) for weights in chosen
        ]
        each = each_on_all(backbone, task, prompts, rows, recipe.max_input_length)
        losses = [gold_losses(mine, gold).mean() for mine in each]
        return [float(one + penalty * two) for one, two in zip(losses, chosen.abs().sum(1).tolist(), strict=True)]

    while not search.stop():
        population = search.ask()
        search.tell(population, costs(population))
    return torch.tensor(search.result.xbest[: len(vectors)], dtype=torch.float32)
