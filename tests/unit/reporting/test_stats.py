"""t tests against scipy on raw values, corrections against their laws, the bootstrap against literal resampling."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, ttest_ind

import tpv
from tpv import metrics
from tpv.metrics import INVALID
from tpv.reporting import stats
from tpv.reporting.stats import (
    Summary,
    best_against_second,
    bonferroni,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    summarise,
    t_test,
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# t tests


def test_summary():
    # mean 2; squares 1 + 0 + 1, over n - 1 = 2
    assert summarise([1, 2, 3]) == Summary(2, 1, 3)
    assert summarise([0.5]) == Summary(0.5, 0.0, 1)
    assert summarise([0.1] * 3).std == 0.0  # numpy's is 1.7e-17
    for bad in ([], [1.0, math.nan]):
        with pytest.raises(tpv.TpvError, match="at least one"):
            summarise(bad)


def test_student_by_hand():
    # means 4 and 2, both of variance 1 (deviations -1, 0, 1; 2 / (3 - 1)), n = 3:
    # t = (4 - 2) / sqrt(1/3 + 1/3) = 2 / 0.8165 = 2.4495, df = 3 + 3 - 2 = 4.
    # With 4 degrees of freedom the two-sided p is 1 - x (1.5 - x^2 / 2) with x = t / sqrt(t^2 + 4):
    # x = sqrt(6 / 10) = 0.7746, p = 1 - 0.7746 * (1.5 - 0.3) = 0.0705
    result = t_test(summarise([3, 4, 5]), summarise([1, 2, 3]))
    assert (result.name, result.df) == ("Student", 4)
    assert result.statistic == pytest.approx(math.sqrt(6))
    assert result.p == pytest.approx(1 - math.sqrt(0.6) * 1.2)


@pytest.mark.parametrize(
    ("n", "m", "name"), [(10, 10, "Student"), (2, 2, "Student"), (10, 3, "Welch"), (2, 7, "Welch")]
)
def test_t_test_against_scipy_on_raw_values(n, m, name):
    random = np.random.default_rng(n * m)
    for shift in (0.0, 0.5, 3.0):
        a, b = random.normal(shift, 1, n), random.normal(0, 4, m)
        got, expected = t_test(summarise(a), summarise(b)), ttest_ind(a, b, equal_var=name == "Student")
        assert got.name == name
        assert (got.statistic, got.df, got.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue))
        other = t_test(summarise(b), summarise(a))
        assert (other.statistic, other.p) == pytest.approx((-got.statistic, got.p))


@pytest.mark.parametrize("n", [3, 10])
def test_runs_that_do_not_vary(n):
    same = t_test(summarise([0.1] * 10), summarise([0.1] * n))
    assert (same.statistic, same.p) == (0.0, 1.0)
    less = t_test(summarise([0.1] * 10), summarise([0.2] * n))
    assert (less.statistic, less.p) == (-math.inf, 0.0)
    # one side varies: an ordinary test
    assert 0 < t_test(summarise([0.1] * 10), summarise([0.2, 0.1, 0.0])).p <= 1


def test_one_run_is_refused():
    with pytest.raises(tpv.TpvError, match="two or more of each method; got 10 and 1"):
        t_test(Summary(1, 1, 10), Summary(0, 0, 1))


# corrections


def test_corrections_by_hand():
    ps = [0.04, 0.01, 0.03, 0.5]
    assert bonferroni(ps) == pytest.approx([0.16, 0.04, 0.12, 1.0])  # each times 4
    # ascending: 0.01 * 4 = 0.04, 0.03 * 3 = 0.09, 0.04 * 2 = 0.08 raised to 0.09, 0.5 * 1
    assert holm(ps) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert bonferroni([]) == holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_laws_of_corrections(ps):
    by_holm, by_bonferroni = holm(ps), bonferroni(ps)
    for p, low, high in zip(ps, by_holm, by_bonferroni, strict=True):
        assert p <= low <= high <= 1
    for adjusted in (by_holm, by_bonferroni):
        for i in range(len(ps)):
            for j in range(len(ps)):
                assert ps[i] > ps[j] or adjusted[i] <= adjusted[j]
    if ps:  # the least p-value faces every comparison
        assert min(by_holm) == min(by_bonferroni)


@pytest.mark.parametrize("correct", [bonferroni, holm])
@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(correct, bad):
    with pytest.raises(tpv.TpvError, match="0 to 1"):
        correct([0.5, bad])


# best against second


def test_best_against_second():
    groups = {"low": [0.1, 0.2, 0.3], "high": [0.9, 0.8, 0.7], "middle": [0.5, 0.6]}
    found = best_against_second(groups)
    assert (found.best, found.second) == ("high", "middle")
    assert (found.best_summary, found.second_summary) == (summarise(groups["high"]), summarise(groups["middle"]))
    assert found.test.p == pytest.approx(ttest_ind(groups["high"], groups["middle"], equal_var=False).pvalue)
    assert best_against_second({name: summarise(values) for name, values in groups.items()}) == found


def test_ties_go_to_the_earlier_group():
    tied = {"x": [1.0, 2.0], "y": [2.0, 1.0], "z": [1.5, 1.5]}
    found = best_against_second(tied)
    assert (found.best, found.second) == ("x", "y")
    found = best_against_second(dict(reversed(tied.items())))
    assert (found.best, found.second) == ("z", "y")


def test_one_group_or_one_run():
    assert best_against_second({}) is None
    assert best_against_second({"only": [1.0, 2.0]}) is None
    for groups in ({"a": [0.5], "b": [0.6]}, {"a": [0.5, 0.7], "b": [0.9]}):
        found = best_against_second(groups)
        assert (found.best, found.second, found.test) == ("b", "a", None)


# bootstrap

LITERAL = {"exact_match": metrics.exact_match, "macro_f1": metrics.macro_f1, "f1": metrics.positive_f1}


def outputs(random, gold, runs, classes, right):
    """Predictions of which a share is right and the rest anything, invalid included, [runs, n]."""
    guess = random.integers(-1, classes, (runs, len(gold)))
    return np.where(random.random(guess.shape) < right, gold, guess)


def literal_bootstrap(gold, a, b, score, resamples, seed):
    """The differences that resampling rows and scoring them gives, [resamples]."""
    random = np.random.default_rng(seed)
    differences = []
    for _ in range(resamples):
        rows = random.integers(len(gold), size=len(gold))
        means = [np.mean([score(gold[rows], run[rows]) for run in runs]) for runs in (a, b)]
        differences.append(means[0] - means[1])
    return np.array(differences)


@pytest.mark.parametrize("block", [1, 40, stats.BLOCK])  # one resample at a time, three, all
@pytest.mark.parametrize(("metric", "classes"), [("exact_match", 3), ("macro_f1", 5), ("macro_f1", 2), ("f1", 2)])
def test_bootstrap_against_literal_resampling(monkeypatch, metric, classes, block):
    monkeypatch.setattr(stats, "BLOCK", block)
    random = np.random.default_rng(classes)
    # Few examples of unevenly many classes: in some resamples a class is absent, or only predicted.
    gold = random.integers(0, classes, 13) * random.integers(0, 2, 13)
    a, b = outputs(random, gold, 3, classes, 0.6), outputs(random, gold, 2, classes, 0.4)
    expected = literal_bootstrap(gold, a, b, LITERAL[metric], 50, seed=7)
    got = paired_bootstrap(gold, a, b, metric, resamples=50, seed=7)
    score = LITERAL[metric]
    assert got.difference == pytest.approx(np.mean([score(gold, r) for r in a]) - np.mean([score(gold, r) for r in b]))
    assert (got.low, got.high) == pytest.approx((np.quantile(expected, 0.025), np.quantile(expected, 0.975)))
    one_side = (1 + min((expected < 1e-9).sum(), (expected > -1e-9).sum())) / (1 + 50)
    assert got.p == pytest.approx(min(1, 2 * one_side))


def test_bootstrap_f1_is_of_the_class_asked_for():
    random = np.random.default_rng(0)
    gold = random.integers(0, 2, 30)
    a, b = outputs(random, gold, 1, 2, 0.7), outputs(random, gold, 1, 2, 0.1)
    got = paired_bootstrap(gold, a, b, "f1", positive=0, resamples=20)
    expected = metrics.positive_f1(gold, a[0], positive=0) - metrics.positive_f1(gold, b[0], positive=0)
    assert got.difference == pytest.approx(expected)
    assert got.difference != pytest.approx(paired_bootstrap(gold, a, b, "f1", resamples=20).difference)


@pytest.mark.parametrize("metric", LITERAL)
def test_bootstrap_swapped_is_mirrored(metric):
    random = np.random.default_rng(1)
    gold = random.integers(0, 2, 60)
    a, b = outputs(random, gold, 2, 2, 0.5), outputs(random, gold, 4, 2, 0.4)
    one, two = (paired_bootstrap(gold, *pair, metric, resamples=200) for pair in ((a, b), (b, a)))
    assert (one.difference, one.low, one.high, one.p) == pytest.approx((-two.difference, -two.high, -two.low, two.p))
    assert one.low < one.difference < one.high


@pytest.mark.parametrize("metric", LITERAL)
def test_bootstrap_of_the_same_predictions(metric):
    random = np.random.default_rng(2)
    gold = random.integers(0, 2, 40)
    a = outputs(random, gold, 7, 2, 0.5)
    for b in (a, a[[3, 1, 0, 6, 5, 2, 4]]):  # in another order, sums differ in the last bit
        assert paired_bootstrap(gold, a, b, metric, resamples=100) == stats.Bootstrap(0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("metric", LITERAL)
def test_bootstrap_of_a_clear_difference(metric):
    random = np.random.default_rng(3)
    gold = random.integers(0, 2, 400)
    a, b = outputs(random, gold, 3, 2, 0.9), outputs(random, gold, 3, 2, 0.3)
    got = paired_bootstrap(gold, a, b, metric, resamples=300)
    assert got.low > 0
    assert got.p == pytest.approx(2 / 301)  # the least there is
    assert paired_bootstrap(gold, a, b, metric, resamples=300, seed=0) == got
    assert paired_bootstrap(gold, a, b, metric, resamples=300, seed=1) != got


def test_bootstrap_is_paired():
    # b is a with 8 of 200 answers spoilt: tiny beside the noise of which examples are drawn, but always downwards
    gold = np.zeros(200, int)
    a = np.where(np.arange(200) % 2, 0, 1)[None]
    b = np.where(np.arange(200) < 16, 1, a)
    got = paired_bootstrap(gold, a, b, "exact_match", resamples=500)
    assert got.difference == pytest.approx(8 / 200)
    assert got.p < 0.01
    # Unpaired, a deviation of sqrt(2 * 0.25 / 200) = 0.05 would hide it; paired it is sqrt(0.04 * 0.96 / 200) = 0.014,
    # and the interval four of those.
    assert got.high - got.low == pytest.approx(4 * 0.0139, rel=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": []}, "nothing empty"),
        ({"gold": [[0, 1, 1]]}, r"shape \[n\]"),
        ({"gold": [0, INVALID, 1]}, "from 0; got -1"),
        ({"a": [0, 1, 1]}, r"shape \[runs, 3\].*got shape \[3\]"),
        ({"b": [[0, 1]]}, r"got shape \[1, 2\]"),
        ({"b": [[0, 1, 1], [0, 1]]}, "different lengths"),
        ({"b": [[0, 1, -2]]}, "from -1; got -2"),
        ({"b": [[0.0, 1.0, 1.0]]}, "got type float64"),
        ({"metric": "macrof1"}, "did you mean 'macro_f1'"),
        ({"resamples": 0}, "at least 1; got 0"),
    ],
)
def test_bootstrap_refuses(change, message):
    fine = {"gold": [0, 1, 1], "a": [[0, 1, 1]], "b": [[0, INVALID, 1]], "metric": "macro_f1"}
    paired_bootstrap(**fine)
    with pytest.raises(tpv.TpvError, match=message):
        paired_bootstrap(**(fine | change))


def test_the_interval_of_one_method_is_scipys_percentile_bootstrap():
    random = np.random.default_rng(3)
    gold = random.integers(0, 3, 150)
    runs = np.where(random.random((2, 150)) < 0.7, gold, random.integers(-1, 3, (2, 150)))
    got = bootstrap_interval(gold, runs, "exact_match", resamples=5000)
    hits = (runs == gold).mean(axis=0)
    wanted = bootstrap((hits,), np.mean, method="percentile", n_resamples=5000, rng=0).confidence_interval
    assert got.score == pytest.approx(hits.mean())
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)
    sure = bootstrap_interval(gold, gold[None], "macro_f1")
    assert (sure.score, sure.low, sure.high) == (1, 1, 1)
    with pytest.raises(tpv.TpvError, match="metric to compare by"):
        bootstrap_interval(gold, runs, "loss")
