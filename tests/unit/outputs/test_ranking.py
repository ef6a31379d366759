"""Probabilities of label words against scikit-learn, float64 loops and cases worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.metrics import log_loss as reference_log_loss

import tpv
from tpv import metrics
from tpv.metrics.probability import BINS
from tpv.outputs.label import Answers, answer_columns, table_of
from tpv.outputs.ranking import Calibrator, fit_calibrator, normalized, softmax
from tpv.outputs.scores import score_predictions


def made(n=400, classes=3, seed=0, sharp=1.0):
    """Log-probabilities whose softmax is the truth about the labels drawn, then made too certain by `sharp`."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, classes)) * 2
    gold = np.array([random.choice(classes, p=row) for row in softmax(logits)])
    return log_softmax(logits * sharp, axis=1) - 3.0, gold


def loop_ece(gold, probabilities):
    """Guo et al. (2017), equation 3, row by row."""
    total = 0.0
    for i in range(BINS):
        rows = [
            (max(row), int(np.argmax(row)) == label)
            for row, label in zip(probabilities.tolist(), gold, strict=True)
            if i / BINS < max(row) <= (i + 1) / BINS
        ]
        if rows:
            gap = abs(sum(right for _, right in rows) - math.fsum(most for most, _ in rows))
            total += gap / len(gold)
    return total


@given(st.integers(0, 10_000))
def test_scores_of_probabilities_against_references(seed):
    log_probs, gold = made(60, 4, seed, sharp=2.0)
    probabilities = softmax(log_probs)
    assert probabilities.sum(1) == pytest.approx(np.ones(60))
    assert metrics.accuracy(gold, probabilities.argmax(1)) == accuracy_score(gold, probabilities.argmax(1))
    expected = reference_log_loss(gold, probabilities, labels=range(4))
    assert metrics.log_loss(gold, probabilities) == pytest.approx(expected)
    assert metrics.ece(gold, probabilities) == pytest.approx(loop_ece(gold, probabilities))


def test_ece_by_hand():
    """0.9 and right twice, 0.9 and wrong once, 0.6 and right: gaps of 3 * 0.9 - 2 and 1 - 0.6 over four rows."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.6, 0.4]])
    assert metrics.ece([0, 1, 1, 0], probabilities) == pytest.approx((0.7 + 0.4) / 4)


def test_lm_evaluation_harness_rule_by_hand():
    """acc takes the largest total log-probability, acc_norm the largest per unit of length: here they differ."""
    log_probs, tokens = np.array([[-4.0, -5.0]]), np.array([2, 4])
    assert normalized(log_probs, "none", tokens, None).argmax() == 0  # -4 > -5
    assert normalized(log_probs, "tokens", tokens, None).argmax() == 1  # -4 / 2 < -5 / 4
    context = np.array([-1.0, -4.0])
    assert normalized(log_probs, "context", tokens, context).tolist() == [[-3.0, -1.0]]


def test_contextual_calibration_is_that_of_zhao_et_al():
    """Their W = diag(p without a text)^-1 applied to p, then renormalized (section 5)."""
    log_probs, _ = made(50)
    context = log_softmax(np.array([0.3, -1.0, 2.0]))
    expected = softmax(log_probs) @ np.diag(1 / np.exp(context))
    expected /= expected.sum(1, keepdims=True)
    assert softmax(normalized(log_probs, "context", np.ones(3), context)) == pytest.approx(expected)


@pytest.mark.parametrize("sharp", [0.4, 1.0, 3.0])
def test_a_known_miscalibration_is_found(sharp):
    """Logits that were multiplied by `sharp` need just that temperature."""
    log_probs, gold = made(20_000, sharp=sharp)
    found = fit_calibrator(["a", "b", "c"], log_probs, gold)
    assert found.temperature == pytest.approx(sharp, rel=0.05)
    assert found.bias == pytest.approx([0, 0, 0], abs=0.08)
    assert metrics.ece(gold, found.probabilities(log_probs)) < 0.02
    if sharp == 3.0:
        assert metrics.ece(gold, softmax(log_probs)) > 0.1


def test_two_labels_are_platt_scaling(monkeypatch):
    """Without a prior, temperature and bias of two labels are logistic regression on the difference of scores."""
    monkeypatch.setattr("tpv.outputs.ranking.PRIOR", 1e6)
    log_probs, gold = made(500, 2, sharp=2.0)
    log_probs[:, 1] += 1.5
    found = fit_calibrator(["no", "yes"], log_probs, gold)
    gap = log_probs[:, 1] - log_probs[:, 0]
    reference = LogisticRegression(C=np.inf, tol=1e-8).fit(gap[:, None], gold)
    assert 1 / found.temperature == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert found.bias[1] - found.bias[0] == pytest.approx(reference.intercept_[0], abs=1e-3)
    assert found.probabilities(log_probs) == pytest.approx(reference.predict_proba(gap[:, None]), abs=1e-3)


def test_a_few_rows_do_not_make_it_certain():
    """Four rows that the prompt gets right would allow a temperature of 0; the prior keeps it from that."""
    log_probs, gold = np.array([[0.0, -9.0], [-9.0, 0.0]] * 2), np.array([0, 1] * 2)
    assert 0.05 < fit_calibrator(["a", "b"], log_probs, gold).temperature < 20
    wrong = fit_calibrator(["a", "b"], log_probs, 1 - gold)
    assert wrong.probabilities(log_probs).max() < 0.8


def test_what_was_answered_survives_storage():
    log_probs, gold = made(30)
    calibrator = Calibrator(labels=("a", "b", "c"), temperature=2.0, bias=(0.5, 0.0, -0.5), normalize="context", rows=9)
    said = Answers(
        torch.tensor(log_probs, dtype=torch.float32),
        torch.full((30,), metrics.INVALID),
        torch.tensor([1, 2, 1]),
        "context",
        torch.tensor([-1.0, -2.0, -0.5]),
        calibrator,
    )
    task = tpv.tasks.labels_only(["a", "b", "c"])
    table = table_of({"gold": [task.labels[i] for i in gold], **answer_columns(said, task)}, said, task)
    scores = score_predictions(table)
    best, probabilities = said.ranked()
    assert scores.accuracy == pytest.approx((best == gold).mean())
    assert scores.log_loss == pytest.approx(metrics.log_loss(gold, probabilities))
    assert scores.invalid_rate == 1.0
    assert scores.exact_match == 0.0
    assert table["said"].null_count == 30
    assert table["predicted"].null_count == 0
    assert table["probability"].to_pylist() == pytest.approx(probabilities.max(1).tolist())


def test_refusals():
    log_probs, gold = made(10)
    with pytest.raises(tpv.TpvError, match="one row per gold label"):
        fit_calibrator(["a", "b"], log_probs, gold)
    with pytest.raises(tpv.TpvError, match="not finite"):
        fit_calibrator(["a", "b", "c"], log_probs * np.nan, gold)
    with pytest.raises(ValueError, match="biases"):
        Calibrator(labels=("a", "b"), bias=(0.0,), rows=1)
