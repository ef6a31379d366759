"""Metrics of probabilities: how far a task's label words are given the probability that they deserve."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tpv.registry import register

BINS = 15  # of confidence, as in Guo et al. (2017)
LEAST = np.finfo(np.float64).tiny


@register.metric("log_loss", order=7, higher=False, field="log_loss", title="log loss")
def log_loss(gold: Sequence[int], probabilities: NDArray[np.floating]) -> float:
    """Mean negative log-probability of the gold label among the task's label words, in nats."""
    chosen = probabilities[np.arange(len(gold)), np.asarray(gold)]
    return float(-np.log(np.maximum(chosen, LEAST)).mean())


@register.metric("ece", order=8, higher=False, field="ece", title="ECE")
def ece(gold: Sequence[int], probabilities: NDArray[np.floating]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over 15 equal bins (Guo et al., 2017)."""
    rows, confidence, accuracy = bins(gold, probabilities)
    return float((rows * np.abs(confidence - accuracy)).sum() / rows.sum())


def bins(
    gold: Sequence[int] | NDArray[np.integer], probabilities: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of rows, mean confidence and accuracy of each of `BINS` equal bins of confidence, 0 where one is empty.

    Confidence is the probability of the likeliest label; bin i is (i / 15, (i + 1) / 15].
    """
    most, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(gold)
    place = np.clip(np.ceil(most * BINS).astype(int) - 1, 0, BINS - 1)
    rows, confidence, accuracy = (
        np.bincount(place, weights=weights, minlength=BINS).astype(np.float64)
        for weights in (np.ones(len(most)), most, right)
    )
    filled = np.maximum(rows, 1)
    return rows, confidence / filled, accuracy / filled
