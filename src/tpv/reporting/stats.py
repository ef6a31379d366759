"""Tests between methods: over runs (Student, Welch), over examples (paired bootstrap), and corrections for many."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpv.errors import TpvError, did_you_mean
from tpv.metrics import INVALID

BLOCK = 1 << 22  # example weights held at a time by the bootstrap

Counts = NDArray[np.float32]  # whole numbers, exact in float32 below 2**24
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (ddof 1, 0 for a single run) of n runs."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Test:
    """A two-sided two-sample t test; `name` is `Student` or `Welch`."""

    name: str
    statistic: float
    df: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """The best group against the second best; `test` is None where either has a single run."""

    best: str
    second: str
    best_summary: Summary
    second_summary: Summary
    test: Test | None


@dataclass(frozen=True)
class Bootstrap:
    """Score of one method minus the other's, its 95 % interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % bootstrap interval over examples."""

    score: float
    low: float
    high: float


def summarise(values: Sequence[float]) -> Summary:
    """Summary of the scores of runs.

    Raises:
        TpvError: no values, or one that is not finite.
    """
    exact = [float(value) for value in values]
    if not exact or not all(map(math.isfinite, exact)):
        raise TpvError("values to summarise", expected="finite numbers, at least one", got=exact)
    # `statistics` sums without rounding: equal values have a deviation of exactly 0, which numpy's need not be.
    return Summary(statistics.mean(exact), statistics.stdev(exact) if len(exact) > 1 else 0.0, len(exact))


def t_test(a: Summary, b: Summary) -> Test:
    """Student's t test (pooled variance) of equally many runs, Welch's of unequally many.

    Source: Belanec et al. (2024), section 4.1; Student (1908), Welch (1947).

    Raises:
        TpvError: fewer than two runs on a side.
    """
    if min(a.n, b.n) < 2:
        raise TpvError("runs for a t test", expected="two or more of each method", got=f"{a.n} and {b.n}")
    pooled = a.n == b.n
    name = "Student" if pooled else "Welch"
    variance_a, variance_b = a.std**2 / a.n, b.std**2 / b.n
    variance = variance_a + variance_b  # of the difference of the means, pooled or not
    if variance == 0:
        # The statistic is 0/0 or x/0. Runs that never vary leave nothing to chance: a difference of their
        # means is certain, and equal means show none.
        difference = a.mean - b.mean
        statistic = math.copysign(math.inf, difference) if difference else 0.0
        return Test(name, statistic, float(a.n + b.n - 2), 0.0 if difference else 1.0)
    share = variance_a / variance
    df = a.n + b.n - 2 if pooled else 1 / (share**2 / (a.n - 1) + (1 - share) ** 2 / (b.n - 1))
    from scipy import stats  # half a second to import

    result = stats.ttest_ind_from_stats(a.mean, a.std, a.n, b.mean, b.std, b.n, equal_var=pooled)
    return Test(name, float(result.statistic), float(df), float(result.pvalue))


def bonferroni(ps: Sequence[float]) -> list[float]:
    """Every p-value times how many there are, at most 1 (Dunn, 1959).

    Raises:
        TpvError: a p-value outside 0 to 1.
    """
    _check_ps(ps)
    return [min(1.0, len(ps) * p) for p in ps]


def holm(ps: Sequence[float]) -> list[float]:
    """Step-down adjusted p-values, in the order given: never above Bonferroni's (Holm, 1979).

    Raises:
        TpvError: a p-value outside 0 to 1.
    """
    _check_ps(ps)
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def best_against_second(groups: Mapping[str, Sequence[float] | Summary]) -> Comparison | None:
    """The group of the highest mean against the next (a tie goes to the earlier one); None below two groups.

    A group is the scores of its runs, or their summary where only that is known.
    Source: Belanec et al. (2024), section 4.1.

    Raises:
        TpvError: a group with no values, or with one that is not finite.
    """
    summaries = {name: values if isinstance(values, Summary) else summarise(values) for name, values in groups.items()}
    if len(summaries) < 2:
        return None
    (best, a), (second, b) = sorted(summaries.items(), key=lambda item: -item[1].mean)[:2]
    return Comparison(best, second, a, b, t_test(a, b) if min(a.n, b.n) > 1 else None)


def paired_bootstrap(
    gold: ArrayLike, a: ArrayLike, b: ArrayLike, metric: str, *, positive: int = 1, resamples: int = 2000, seed: int = 0
) -> Bootstrap:
    """How far the difference of two methods on one test set hangs on which examples are in it.

    The examples are resampled, the same draw for both methods; the runs are not. The interval is of percentiles
    (Efron and Tibshirani, 1993, section 13.3). The p-value is twice the smaller share of resamples at or beyond
    zero, both shares counted with the observed data as one more resample, so that it is never 0: (1 + hits) /
    (1 + resamples) (Davison and Hinkley, 1997, section 4.2).

    Args:
        gold: label ids, [n].
        a: predicted label ids of one method, `INVALID` (-1) for any other output, [runs of a, n].
        b: the same of the other, [runs of b, n].
        metric: `exact_match`, `macro_f1` or `f1`, as in `tpv.metrics`; a method's score is the mean over its runs.
        positive: the class `f1` is of.

    Raises:
        TpvError: shapes or label ids that do not fit, an unknown metric, no resamples.
    """
    observed, drawn = _resampled(gold, [a, b], metric, positive, resamples, seed)
    # Runs summed in another order differ in the last bit, which must not count as a difference.
    difference, others = (np.round(scores[0] - scores[1], 12) for scores in (observed, drawn))
    low, high = np.quantile(others, [0.025, 0.975])
    smaller = min((others <= 0).sum(), (others >= 0).sum())
    p = min(1.0, float(2 * (1 + smaller) / (1 + resamples)))
    return Bootstrap(float(difference[0]), float(low), float(high), p)


def bootstrap_interval(
    gold: ArrayLike, predicted: ArrayLike, metric: str, *, positive: int = 1, resamples: int = 2000, seed: int = 0
) -> Interval:
    """How far one method's score on a test set hangs on which examples are in it; see `paired_bootstrap`.

    Args:
        predicted: predicted label ids, `INVALID` (-1) for any other output, [runs, n]; the score is the mean over runs.

    Raises:
        TpvError: shapes or label ids that do not fit, an unknown metric, no resamples.
    """
    observed, drawn = _resampled(gold, [predicted], metric, positive, resamples, seed)
    low, high = np.quantile(drawn[0], [0.025, 0.975])
    return Interval(float(observed[0, 0]), float(low), float(high))


def bootstrap_mean(values: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """How far the mean of a score that each example has hangs on which examples there are; see `paired_bootstrap`.

    Args:
        values: of one run on n examples, [n], or of several, [runs, n]; their mean over runs is resampled.

    Raises:
        TpvError: no values, values that are not finite, no resamples.
    """
    each = _per_example(values)
    low, high = np.quantile(_drawn_means(each, resamples, seed), [0.025, 0.975])
    return Interval(float(each.mean()), float(low), float(high))


def paired_bootstrap_mean(a: ArrayLike, b: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Bootstrap:
    """`paired_bootstrap` of scores that each example has, [runs, n] of either method, as in `bootstrap_mean`."""
    one, other = _per_example(a), _per_example(b)
    if one.shape != other.shape:
        raise TpvError("scores of examples", expected=f"as many of both, {len(one)}", got=len(other))
    difference = np.round(one.mean() - other.mean(), 12)
    drawn = np.round(_drawn_means(one - other, resamples, seed), 12)
    low, high = np.quantile(drawn, [0.025, 0.975])
    smaller = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Bootstrap(float(difference), float(low), float(high), min(1.0, float(2 * (1 + smaller) / (1 + resamples))))


def _per_example(values: ArrayLike) -> Scores:
    """The mean over runs of scores [n] or [runs, n], refused where they are not finite."""
    rows = np.atleast_2d(np.asarray(values, np.float64))
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise TpvError("scores of examples", expected="finite, shape [n] or [runs, n]", got=f"shape {list(rows.shape)}")
    mean: Scores = rows.mean(axis=0)
    return mean


def _drawn_means(each: Scores, resamples: int, seed: int) -> Scores:
    """The mean of scores [n] in every resample of the examples, [resamples]."""
    if resamples < 1:
        raise TpvError("resamples", expected="at least 1", got=resamples)
    random = np.random.default_rng(seed)
    size = max(1, BLOCK // len(each))
    blocks = [min(size, resamples - start) for start in range(0, resamples, size)]
    return np.concatenate([_draw(random, block, len(each)).astype(np.float64) @ each for block in blocks]) / len(each)


def _resampled(
    gold: ArrayLike, methods: Sequence[ArrayLike], metric: str, positive: int, resamples: int, seed: int
) -> tuple[Scores, Scores]:
    """Mean score over runs of each method: observed [methods, 1], and on resampled examples [methods, resamples]."""
    if metric not in RESAMPLED:
        raise TpvError("metric to compare by", got=repr(metric), fix=did_you_mean(metric, RESAMPLED))
    if resamples < 1:
        raise TpvError("resamples", expected="at least 1", got=resamples)
    truth = _ids(gold, "gold label ids", dimensions=1, least=0)
    outputs = [_ids(of, "predicted label ids", dimensions=2, least=INVALID, n=len(truth)) for of in methods]

    def scores(weights: Counts) -> Scores:  # [resamples, n] -> [methods, resamples]
        return np.array(
            [np.mean([RESAMPLED[metric](weights, truth, run, positive) for run in runs], axis=0) for runs in outputs]
        )

    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // len(truth))
    blocks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    drawn = np.concatenate([scores(_draw(random, block, len(truth))) for block in blocks], axis=1)
    return scores(np.ones((1, len(truth)), np.float32)), drawn


def _draw(random: np.random.Generator, rows: int, n: int) -> Counts:
    """How often each example is in each of `rows` resamples of n with replacement (multinomial), [rows, n]."""
    drawn = random.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)


# One run's score in every resample, [resamples], from example weights [resamples, n]: an indicator of the examples
# times the weights gives a cell of the weighted confusion table.


def _exact_match(weights: Counts, gold: NDArray[Any], output: NDArray[Any], positive: int) -> Scores:
    right: Counts = weights @ (gold == output).astype(np.float32)
    return right.astype(np.float64) / len(gold)


def _f1_of(weights: Counts, gold: NDArray[Any], output: NDArray[Any], labels: NDArray[Any]) -> tuple[Scores, Scores]:
    """F1 per class, 0 for one that does not occur; and how often it occurs. Both [resamples, labels]."""
    is_gold, is_output = gold[:, None] == labels, output[:, None] == labels
    hits = (weights @ (is_gold & is_output).astype(np.float32)).astype(np.float64)
    # (tp + fn) + (tp + fp)
    occurs = (weights @ np.add(is_gold, is_output, dtype=np.float32)).astype(np.float64)
    return 2 * hits / np.maximum(occurs, 1), occurs


def _macro_f1(weights: Counts, gold: NDArray[Any], output: NDArray[Any], positive: int) -> Scores:
    f1, occurs = _f1_of(weights, gold, output, np.union1d(gold, output[output != INVALID]))
    mean: Scores = f1.sum(axis=1) / (occurs > 0).sum(axis=1)
    return mean


def _positive_f1(weights: Counts, gold: NDArray[Any], output: NDArray[Any], positive: int) -> Scores:
    valid = np.where(output == INVALID, 1 - gold, output)
    return _f1_of(weights, gold, valid, np.array([positive]))[0][:, 0]


RESAMPLED: dict[str, Callable[[Counts, NDArray[Any], NDArray[Any], int], Scores]] = {
    "exact_match": _exact_match,
    "macro_f1": _macro_f1,
    "f1": _positive_f1,
}


def _check_ps(ps: Sequence[float]) -> None:
    for p in ps:
        if not 0 <= p <= 1:  # nan too
            raise TpvError("p-value to correct", expected="0 to 1", got=p)


def _ids(values: ArrayLike, what: str, *, dimensions: int, least: int, n: int | None = None) -> NDArray[Any]:
    """Label ids as an array [n] or [runs, n], refused where they are not."""
    shape = "[n]" if dimensions == 1 else f"[runs, {n}]"
    try:
        ids = np.asarray(values)
    except ValueError:  # rows of different lengths
        raise TpvError(what, expected=f"shape {shape}", got="rows of different lengths") from None
    if ids.ndim != dimensions or not ids.size or (n is not None and ids.shape[-1] != n):
        raise TpvError(what, expected=f"shape {shape}, nothing empty", got=f"shape {list(ids.shape)}")
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < least:
        got = f"type {ids.dtype}" if not np.issubdtype(ids.dtype, np.integer) else ids.min()
        raise TpvError(what, expected=f"whole numbers from {least}", got=got)
    return ids.astype(np.int64)
