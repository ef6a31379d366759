"""Metrics of numbers. A prediction is the number said, or `INVALID_NUMBER` for any other output."""

import math
from collections.abc import Sequence

from tpv.errors import TpvError
from tpv.registry import register

INVALID_NUMBER = -1.0  # what T5 scores an output as that is no number


@register.metric("pearson", order=5, scope="numbers", field="pearson", title="Pearson")
def pearson(gold: Sequence[float], said: Sequence[float]) -> float:
    """Correlation of the numbers said with the rows' own, 0 where it is undefined (all the same, or one row).

    Args:
        gold: the rows' own numbers, not rounded to a label word.
        said: the numbers said; `INVALID_NUMBER` for an output that is no label word. That is T5's convention
            for what does not read as a number; a number that is no label word is -1 here too.
    """
    return _correlation("pearsonr", gold, said)


@register.metric("spearman", order=6, scope="numbers", field="spearman", title="Spearman")
def spearman(gold: Sequence[float], said: Sequence[float]) -> float:
    """Correlation of the ranks, ties sharing theirs; arguments and undefined cases as in `pearson`."""
    return _correlation("spearmanr", gold, said)


def _correlation(of: str, gold: Sequence[float], said: Sequence[float]) -> float:
    if not len(gold) or len(gold) != len(said):
        raise TpvError("numbers to correlate", expected="as many as gold numbers, at least one", got=len(said))
    if len(set(gold)) < 2 or len(set(said)) < 2:
        return 0.0
    from scipy import stats

    value = float(getattr(stats, of)(gold, said).statistic)
    return value if math.isfinite(value) else 0.0
