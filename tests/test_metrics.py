"""Scores against hand-worked confusion tables and scikit-learn on valid predictions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

import tpv
from tpv import metrics
from tpv.metrics import INVALID


def test_hand_worked():
    gold = [0, 0, 1, 1, 1, 2]
    predicted = [0, INVALID, 1, 1, 0, 1]
    assert metrics.exact_match(gold, predicted) == pytest.approx(3 / 6)
    assert metrics.invalid_rate(gold, predicted) == pytest.approx(1 / 6)
    assert metrics.majority(gold, predicted) == pytest.approx(3 / 6)
    # class 0: tp 1, fp 1, fn 1 -> 0.5; class 1: tp 2, fp 1, fn 1 -> 2/3; class 2: 0
    assert metrics.macro_f1(gold, predicted) == pytest.approx((0.5 + 2 / 3 + 0) / 3)


def test_invalid_counts_as_the_wrong_label_in_positive_f1():
    # gold 1 invalid -> a miss; gold 0 invalid -> a false alarm
    assert metrics.positive_f1([1, 1, 0, 0], [1, INVALID, INVALID, 0]) == pytest.approx(0.5)
    assert metrics.positive_f1([1, 0], [1, 0], positive=0) == 1.0
    assert metrics.positive_f1([0, 0], [INVALID, INVALID]) == 0.0


labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(labels)
def test_against_scikit_learn_where_all_is_valid(pairs):
    gold, predicted = zip(*pairs, strict=True)
    assert metrics.exact_match(gold, predicted) == pytest.approx(reference.accuracy_score(gold, predicted))
    expected = reference.f1_score(gold, predicted, average="macro", zero_division=0)
    assert metrics.macro_f1(gold, predicted) == pytest.approx(expected)


def test_nothing_to_score_is_refused():
    with pytest.raises(tpv.TpvError, match="at least one"):
        metrics.exact_match([], [])
    with pytest.raises(tpv.TpvError, match="as many as gold"):
        metrics.macro_f1([1], [])
