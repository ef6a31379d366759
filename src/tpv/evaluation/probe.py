"""A probe: logistic regression on the hidden states of the frozen model."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpv.errors import DamagedFileError
from tpv.outputs.ranking import softmax

DEPTHS = (0.5, 0.75, 1.0)  # shares of the layers that states are tried after
STRENGTHS = (0.01, 0.1, 1.0)  # inverse regularization
FOLDS = 3
LEAST = 1e-6  # probability of a label that training rows had none of


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        depth: place in `DEPTHS` of the states that it reads.
        last: whether it reads the state that an answer begins from, rather than the mean over the text.
        strength: C of scikit-learn's `LogisticRegression`.
        mean, scale: what states are standardized by, [H].
        weight, bias: one row for each label, [C, H] and [C]; a label that training had no row of has bias -inf.
    """

    depth: int
    last: bool
    strength: float
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def log_probs(self, states: Tensor) -> NDArray[np.float64]:
        """Log-probability of each label, [N, C], from hidden states [N, D, 2, H] after `DEPTHS`."""
        values = (_column(states, self.depth, self.last) - self.mean) / self.scale
        logits = values @ self.weight.T + self.bias
        return np.log(np.maximum(softmax(logits), LEAST))

    def tensors(self) -> dict[str, Tensor]:
        """All of it, to save."""
        arrays = {"mean": self.mean, "scale": self.scale, "weight": self.weight, "bias": self.bias}
        numbers = {"depth": self.depth, "last": float(self.last), "strength": self.strength}
        found = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return found | {name: torch.tensor([number], dtype=torch.float64) for name, number in numbers.items()}

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor], what: str) -> Probe:
        """What `tensors` gave.

        Raises:
            DamagedFileError: something is missing, or does not fit.
        """
        try:
            arrays = {name: tensors[name].double().numpy() for name in ("mean", "scale", "weight", "bias")}
            depth, last, strength = (float(tensors[name]) for name in ("depth", "last", "strength"))
            width, count = len(arrays["mean"]), len(arrays["bias"])
            good = arrays["scale"].shape == (width,) and arrays["weight"].shape == (count, width)
            good &= depth in range(len(DEPTHS)) and bool(np.isfinite(arrays["weight"]).all())
        except (KeyError, ValueError, TypeError):
            good = False
        if not good:
            raise DamagedFileError(f"{what} holds no probe that tpv wrote")
        return cls(int(depth), bool(last), strength, **arrays)


def fit_probe(states: Tensor, gold: Sequence[int], labels: int, seed: int = 0) -> Probe:
    """Fit a probe; which states it reads and how strongly it is regularized are chosen by cross-validation.

    Where a label has fewer than two rows there is nothing to validate on, and it reads the mean of the last layer.

    Args:
        states: hidden states [N, D, 2, H] after `DEPTHS`, as `Backbone.hidden` gives them.
        gold: label ids, [N], of at least two labels.
        labels: C, how many labels there are.
    """
    truth = np.asarray(gold)
    fewest = min(np.bincount(truth, minlength=labels)[np.unique(truth)])
    choice = (len(DEPTHS) - 1, False, STRENGTHS[1])
    if fewest >= 2:
        choice = _chosen(states, truth, labels, min(FOLDS, int(fewest)), seed)
    return _fitted(states, truth, labels, *choice)


def _chosen(states: Tensor, gold: NDArray[np.int64], labels: int, folds: int, seed: int) -> tuple[int, bool, float]:
    """The states and strength with the lowest log loss on rows left out."""
    from sklearn.model_selection import StratifiedKFold

    parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(gold, gold))

    def cost(depth: int, last: bool, strength: float) -> float:
        total = 0.0
        for train, held in parts:
            probe = _fitted(states[torch.from_numpy(train)], gold[train], labels, depth, last, strength)
            log_probs = probe.log_probs(states[torch.from_numpy(held)])
            total -= float(log_probs[np.arange(len(held)), gold[held]].sum())
        return total

    tried = itertools.product(range(len(DEPTHS)), (False, True), STRENGTHS)
    return min(tried, key=lambda choice: cost(*choice))


def _fitted(states: Tensor, gold: NDArray[np.int64], labels: int, depth: int, last: bool, strength: float) -> Probe:
    from sklearn.linear_model import LogisticRegression

    values = _column(states, depth, last)
    mean, scale = values.mean(0), values.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    # dimensions are many and rows few: what counts is the penalty a dimension, not a row
    model = LogisticRegression(C=strength, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit((values - mean) / scale, gold)
    weight, bias = np.zeros((labels, len(mean))), np.full(labels, -np.inf)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two labels
        weight[model.classes_], bias[model.classes_] = np.stack([0 * model.coef_[0], model.coef_[0]]), [0, 0]
        bias[model.classes_[1]] = model.intercept_[0]
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return Probe(depth, last, strength, mean, scale, weight, bias)


def _column(states: Tensor, depth: int, last: bool) -> NDArray[np.float64]:
    return states[:, depth, int(last)].double().numpy()
