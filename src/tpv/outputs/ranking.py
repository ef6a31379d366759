"""From log-probabilities of label words to probabilities: normalization and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tpv.errors import TpvError, did_you_mean

Normalize = Literal["none", "tokens", "context"]
LEAST = 1e-12  # probability, where a logarithm is taken
PRIOR = 2.0  # standard deviation of log-temperature and biases before any row is seen: what keeps a few rows honest


class Calibrator(BaseModel):
    """Turns scores of label words into probabilities that mean what they say: softmax(scores / temperature + bias).

    Temperature scaling (Guo et al., 2017) with a bias per label, as in vector scaling. Make one with `tpv.calibrate`
    or `tpv.cross_calibrate`.

    Attributes:
        labels: the label words, in id order.
        temperature: above 1 makes probabilities less certain.
        bias: of each label word, nats; they sum to 0.
        normalize: of the scores it was fitted to, see `tpv.evaluate`.
        rows: how many labelled rows it was fitted to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    bias: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    normalize: Normalize = "none"
    rows: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.bias) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels, {len(self.bias)} biases")
        return self

    def probabilities(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities [N, C] of scores [N, C]."""
        return softmax(scores / self.temperature + np.array(self.bias))

    def check(self, labels: Sequence[str]) -> None:
        """Refuse a task of other label words.

        Raises:
            TpvError: this calibrator is of others.
        """
        if tuple(labels) != self.labels:
            raise TpvError(
                "label words of the calibrator", expected=list(labels), got=list(self.labels), fix="calibrate again"
            )


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities [N, C] of scores [N, C], in float64."""
    shifted = np.exp(np.asarray(scores, np.float64) - np.max(scores, axis=1, keepdims=True))
    total: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return total


def log_of(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithms of probabilities, finite where one is 0."""
    return np.asarray(np.log(np.maximum(probabilities, LEAST)))


def log_mean(log_probs: Sequence[NDArray[np.float64]], weights: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Logarithm of the (weighted) average of probabilities, each given as its logarithm."""
    return log_of(np.average([np.exp(one) for one in log_probs], axis=0, weights=weights))


def gold_losses(probabilities: NDArray[np.floating], gold: NDArray[np.integer]) -> NDArray[np.float64]:
    """Negative log-likelihood [N], nats, of the gold labels [N] under probabilities [N, C]."""
    return -log_of(probabilities[np.arange(len(gold)), gold])


def normalized(
    log_probs: NDArray[np.floating],
    normalize: Normalize,
    label_tokens: NDArray[np.integer],
    context: NDArray[np.floating] | None,
) -> NDArray[np.float64]:
    """Scores [N, C] to rank label words by.

    Args:
        log_probs: log-probability of every label word, [N, C].
        normalize: `none`, the log-probabilities themselves; `tokens`, per token of the word; `context`, less the word's
            log-probability without a text (contextual calibration, Zhao et al., 2021).
        label_tokens: number of tokens of every label word, [C].
        context: log-probability of every label word without a text, [C].
    """
    scores = np.asarray(log_probs, np.float64)
    if normalize == "tokens":
        return scores / label_tokens
    if normalize == "context":
        if context is None:
            raise TpvError("normalize 'context'", expected="log-probabilities without a text", got="none")
        return scores - context
    return scores


def ranked(
    log_probs: NDArray[np.floating],
    normalize: Normalize,
    label_tokens: NDArray[np.integer],
    context: NDArray[np.floating] | None = None,
    calibrator: Calibrator | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The likeliest label word of each of N inputs, [N], the first of equal ones, and the probability of each, [N, C].

    Args: see `normalized`.
    """
    scores = normalized(log_probs, normalize, label_tokens, context)
    probabilities = softmax(scores) if calibrator is None else calibrator.probabilities(scores)
    return probabilities.argmax(axis=1), probabilities


def checked_normalize(normalize: str | None, calibrator: Calibrator | None) -> Normalize:
    """How scores are normalized: as asked, or else as the calibrator was fitted.

    Raises:
        TpvError: no such way, or another one than the calibrator's.
    """
    known = get_args(Normalize)
    if normalize is not None and normalize not in known:
        raise TpvError(f"unknown normalize {normalize!r:.40}", fix=did_you_mean(str(normalize), known))
    if calibrator is None:
        return "none" if normalize is None else normalize  # type: ignore[return-value]
    if normalize not in (None, calibrator.normalize):
        raise TpvError(
            f"normalize {normalize!r} beside a calibrator",
            expected=f"{calibrator.normalize!r}, which it was fitted with",
            fix="leave it out, or calibrate again",
        )
    return calibrator.normalize


def fit_calibrator(
    labels: Sequence[str], scores: NDArray[np.floating], gold: Sequence[int], normalize: Normalize = "none"
) -> Calibrator:
    """The calibrator under which the gold labels are likeliest, log-temperature and biases kept near 0.

    Args:
        labels: the label words.
        scores: normalized scores of rows that the prompt was not trained on, [N, C].
        gold: the label id of each, [N].

    Raises:
        TpvError: no rows, scores that do not fit, or scores that are not finite.
    """
    from scipy.optimize import minimize

    values, truth = np.asarray(scores, np.float64), np.asarray(gold)
    if values.ndim != 2 or values.shape != (len(truth), len(labels)) or not len(truth):
        raise TpvError(
            "scores to calibrate", expected=f"[rows, {len(labels)}], one row per gold label", got=list(values.shape)
        )
    if not np.isfinite(values).all():
        raise TpvError("scores to calibrate are not finite", fix="use precision fp32")
    hit = np.eye(len(labels))[truth]

    def cost(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale, bias = math.exp(-at[0]), at[1:]
        logits = values * scale + bias
        probabilities = softmax(logits)
        gap = probabilities - hit
        most = logits.max(axis=1)
        total = np.log(np.exp(logits - most[:, None]).sum(axis=1)) + most - logits[np.arange(len(truth)), truth]
        slope = np.concatenate([[-(gap * values).sum() * scale], gap.sum(axis=0)])
        return float(total.sum() + (at**2).sum() / (2 * PRIOR**2)), slope + at / PRIOR**2

    start = np.zeros(1 + len(labels))
    bounds = [(-7.0, 7.0), *[(-50.0, 50.0)] * len(labels)]
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}).x
    bias = found[1:] - found[1:].mean()
    return Calibrator(
        labels=tuple(labels),
        temperature=float(math.exp(found[0])),
        bias=tuple(map(float, bias)),
        normalize=normalize,
        rows=len(truth),
    )
