"""Scores against hand-worked confusion tables, scikit-learn on valid predictions, and numpy for correlations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
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


def test_correlations_by_hand():
    """Means 2 and 2: deviations (-2, 0, 2) and (-1, -1, 2), so r = 6 / sqrt(8 * 6); ranks 1, 2, 3 and 1.5, 1.5, 3."""
    gold, said = [0.0, 2.0, 4.0], [1.0, 1.0, 4.0]
    assert metrics.pearson(gold, said) == pytest.approx(6 / 48**0.5)
    assert metrics.spearman(gold, said) == pytest.approx(1.5 / (2 * 1.5) ** 0.5)
    assert metrics.pearson(gold, [-x for x in gold]) == pytest.approx(-1)


numbers = st.lists(
    st.tuples(st.floats(0, 5, width=16), st.sampled_from([metrics.INVALID_NUMBER, *(i / 5 for i in range(26))])),
    min_size=2,
    max_size=40,
)


@given(numbers)
def test_correlations_against_numpy(pairs):
    gold, said = map(np.array, zip(*pairs, strict=True))
    for of, x, y in ((metrics.pearson, gold, said), (metrics.spearman, rankdata(gold), rankdata(said))):
        value = of(gold.tolist(), said.tolist())
        if np.ptp(gold) and np.ptp(said):
            assert value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
        else:
            assert value == 0.0


def test_an_undefined_correlation_is_zero():
    for of in (metrics.pearson, metrics.spearman):
        assert of([1.0, 2.0], [3.0, 3.0]) == of([2.0, 2.0], [1.0, 3.0]) == of([1.0], [1.0]) == 0.0
        with pytest.raises(tpv.TpvError, match="at least one"):
            of([], [])
        with pytest.raises(tpv.TpvError, match="as many as gold"):
            of([1.0, 2.0], [1.0])
