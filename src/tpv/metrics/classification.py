"""Metrics of labels. What was said is a label id, or `INVALID` for any other output."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tpv.errors import TpvError
from tpv.registry import register

INVALID = -1


def _arrays(gold: Sequence[int], said: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    if not len(gold) or len(gold) != len(said):
        raise TpvError("predictions to score", expected="as many as gold labels, at least one", got=len(said))
    return np.asarray(gold), np.asarray(said)


@register.metric("exact_match", order=1, field="exact_match", title="exact match")
def exact_match(gold: Sequence[int], said: Sequence[int]) -> float:
    """Share of examples whose output is exactly the gold label word."""
    truth, output = _arrays(gold, said)
    return float((truth == output).mean())


@register.metric("accuracy", order=2, field="accuracy", title="accuracy")
def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Share of examples whose likeliest label word is the gold one; what lm-evaluation-harness calls acc."""
    return exact_match(gold, predicted)


@register.metric("macro_f1", order=3, field="macro_f1", title="macro-F1")
def macro_f1(gold: Sequence[int], said: Sequence[int]) -> float:
    """Unweighted mean F1 over the classes that occur as gold or as valid prediction.

    An invalid output is a miss of its gold class and a hit of none.
    """
    from sklearn.metrics import f1_score  # half a second to import

    truth, output = _arrays(gold, said)
    present = np.union1d(truth, output[output != INVALID])
    return float(f1_score(truth, output, labels=present, average="macro", zero_division=0))


@register.metric("f1", order=4, scope="two labels", field="positive_f1", title="F1")
def positive_f1(gold: Sequence[int], said: Sequence[int], positive: int = 1) -> float:
    """F1 of one class of a binary task, an invalid output counted as the wrong label (quirk 5)."""
    from sklearn.metrics import f1_score  # half a second to import

    truth, output = _arrays(gold, said)
    output = np.where(output == INVALID, 1 - truth, output)
    return float(f1_score(truth, output, labels=[positive], average="macro", zero_division=0))


@register.metric("invalid_rate", order=90, higher=False, field="invalid_rate", title="invalid")
def invalid_rate(gold: Sequence[int], said: Sequence[int]) -> float:
    """Share of examples whose output is no label word of the task."""
    _, output = _arrays(gold, said)
    return float((output == INVALID).mean())


@register.metric("majority", order=91, field="majority", title="majority")
def majority(gold: Sequence[int], said: Sequence[int]) -> float:
    """Exact match of always saying the most frequent gold label: what a blind guess gets."""
    truth, _ = _arrays(gold, said)
    return float(np.bincount(truth).max() / len(truth))


@register.metric("loss", order=92, higher=False, field="loss", title="loss")
def loss(gold: Sequence[int], log_probs: NDArray[np.floating], label_tokens: NDArray[np.integer]) -> float:
    """Mean negative log-likelihood of the gold label words per token, in nats."""
    said = log_probs[np.arange(len(gold)), gold].sum(dtype=np.float64)
    return float(-said / label_tokens[np.asarray(gold)].sum())
