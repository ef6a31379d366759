"""Predictions to scores. A prediction is a label id, or `INVALID` for any other output."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score

from tpv.errors import TpvError

INVALID = -1
INVALID_NUMBER = -1.0  # what T5 scores an output as that is no number


def _arrays(gold: Sequence[int], predicted: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    if not len(gold) or len(gold) != len(predicted):
        raise TpvError("predictions to score", expected="as many as gold labels, at least one", got=len(predicted))
    return np.asarray(gold), np.asarray(predicted)


def exact_match(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Share of examples whose output is exactly the gold label word."""
    truth, output = _arrays(gold, predicted)
    return float((truth == output).mean())


def invalid_rate(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Share of examples whose output is no label word of the task."""
    _, output = _arrays(gold, predicted)
    return float((output == INVALID).mean())


def majority(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Exact match of always saying the most frequent gold label: what a blind guess gets."""
    truth, _ = _arrays(gold, predicted)
    return float(np.bincount(truth).max() / len(truth))


def macro_f1(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Unweighted mean F1 over the classes that occur as gold or as valid prediction.

    An invalid output is a miss of its gold class and a hit of none.
    """
    truth, output = _arrays(gold, predicted)
    present = np.union1d(truth, output[output != INVALID])
    return float(f1_score(truth, output, labels=present, average="macro", zero_division=0))


def positive_f1(gold: Sequence[int], predicted: Sequence[int], positive: int = 1) -> float:
    """F1 of one class of a binary task, an invalid output counted as the wrong label (quirk 5)."""
    truth, output = _arrays(gold, predicted)
    output = np.where(output == INVALID, 1 - truth, output)
    return float(f1_score(truth, output, labels=[positive], average="macro", zero_division=0))


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Correlation of predicted numbers with the rows' own, 0 where it is undefined (all the same, or one row).

    Args:
        gold: the rows' own numbers, not rounded to a label word.
        predicted: the numbers said; `INVALID_NUMBER` for an output that is no label word. That is T5's convention
            for what does not read as a number; a number that is no label word is -1 here too.
    """
    return _correlation(stats.pearsonr, gold, predicted)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Correlation of the ranks, ties sharing theirs; arguments and undefined cases as in `pearson`."""
    return _correlation(stats.spearmanr, gold, predicted)


def _correlation(of: Callable[..., Any], gold: Sequence[float], predicted: Sequence[float]) -> float:
    if not len(gold) or len(gold) != len(predicted):
        raise TpvError("numbers to correlate", expected="as many as gold numbers, at least one", got=len(predicted))
    if len(set(gold)) < 2 or len(set(predicted)) < 2:
        return 0.0
    value = float(of(gold, predicted).statistic)
    return value if math.isfinite(value) else 0.0
