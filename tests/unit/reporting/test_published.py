"""The paper's numbers against its own text, and its stars against its own numbers."""

import itertools
import re
import tomllib

import pytest
from places import ROOT, SHARED

from tpv.reporting.published import Printed, Published, is_paper_model, lookup, published
from tpv.reporting.stats import Summary, best_against_second, bonferroni, t_test

SOURCES = ("mnli", "qnli", "trec", "dbpedia_14", "sst2", "yelp_polarity")
TARGETS = ("scitail", "ag_news", "imdb", "snli", "yahoo_answers_topics", "sst5")
SHOTS = (0, 100)
ALPHA = 0.05


def column(table, task, shots):
    return {
        (place.method, place.source): number
        for place, number in published().items()
        if (place.table, place.task, place.shots) == (table, task, shots)
    }


# the numbers


def test_lookup():
    assert lookup(1, "trec", "moved", None) == Published(26.5, 18.2, 10, True, "trec")
    assert lookup(2, "scitail", "sum", 0) == Published(71.5, 0.8, 10, True, "scitail")
    assert lookup(4, "snli", "spot_multi", 100) == Published(81.0, 0.4, 3, True, "snli")
    assert lookup(4, "yahoo_answers_topics", "attempt", 100) == Published(8.1, 5.6, 3, False, "yahoo_answers_topics")
    for missing in ((1, "trec", "moved", 0), (2, "snli", "sum", 0), (3, "snli", "sum", 0), (4, "snli", "sum", 5)):
        assert lookup(*missing) is None


def test_the_sst5_column_is_sst2():
    assert lookup(4, "sst5", "sum", 0) is None
    assert lookup(4, "sst5", "sum", 0, compat=True) == Published(89.9, 0.8, 10, False, "sst2")
    assert lookup(4, "imdb", "sum", 0, compat=True) == lookup(4, "imdb", "sum", 0)
    assert {cell.task for cell, number in published().items() if number.really != cell.task} == {"sst5"}


def test_every_cell_is_there():
    pairs = {"scitail": SOURCES[:2], "ag_news": SOURCES[2:4], "imdb": SOURCES[4:]}
    pairs |= {"snli": SOURCES[:2], "yahoo_answers_topics": SOURCES[2:4], "sst5": SOURCES[4:]}
    expected = {Printed(1, task, method, "", None) for task in (*SOURCES, "avg") for method in ("tuned", "moved")}
    for table, targets in ((2, TARGETS[:3]), (4, TARGETS)):
        for task, shots in itertools.product(targets, SHOTS):
            methods = [(method, "") for method in ("random", "spot_multi", "attempt", "sum")]
            methods += [("spot", source) for source in pairs[task]]
            expected |= {Printed(table, task, *method, shots) for method in methods}
    assert set(published()) == expected
    three = {cell.method for cell, number in published().items() if number.n == 3}
    assert three == {"spot_multi", "attempt"}
    assert {number.n for number in published().values()} == {3, 10}


def test_the_paper_s_model():
    assert is_paper_model("t5-base")
    assert is_paper_model("google-t5/t5-base")
    assert not is_paper_model("google/t5-v1_1-base")


def test_the_data_file_is_packaged():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "reporting/*.toml" in options["package-data"]["tpv"]


def printed(number):
    """As the PDF's text runs it together: `70.4` with subscript `0.4` and a star is `70.40.4∗`."""
    return f"{number.mean:g}{number.std:g}{'∗' * number.star}"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the paper's text, which is not here")
def test_every_number_is_in_the_paper_s_text():
    text = "".join(path.read_text() for path in sorted((SHARED / "paper").glob("*.txt")))
    text = re.sub(r"\s", "", text)
    order = ("qnli", "mnli", "trec", "dbpedia_14", "sst2", "yelp_polarity", "avg")
    for method, name in (("tuned", "Prompttuning"), ("moved", "Randominit")):
        assert text.count(name + "".join(printed(lookup(1, task, method, None)) for task in order)) == 1
    names = {
        ("random", ""): "Random",
        ("spot", "mnli"): "MNLI(SPoT)",
        ("spot", "qnli"): "QNLI(SPoT)",
        ("spot", "dbpedia_14"): "DBPedia(SPoT)",
        ("spot", "trec"): "TREC(SPoT)",
        ("spot", "sst2"): "SST2(SPoT)",
        ("spot", "yelp_polarity"): "Yelp(SPoT)",
    }
    both = {("spot_multi", ""): "(SPoT)", ("attempt", ""): "(ATTEMPT)", ("sum", ""): "(ours)"}
    pairs = ("QNLI+MNLI", "DBPedia+TREC", "SST2+Yelp")
    for table, targets in ((2, TARGETS[:3]), (4, TARGETS[:3]), (4, TARGETS[3:])):
        for methods in zip(*(column(table, task, 0) for task in targets), strict=True):
            row = "".join(
                (names[method] if method in names else pair + both[method])
                + "".join(printed(published()[Printed(table, task, *method, shots)]) for shots in SHOTS)
                for task, method, pair in zip(targets, methods, pairs, strict=True)
            )
            # Table 2's rows are printed twice; of one, Table 4's print has lost the 8 of 82.1
            lost = methods[0] == ("spot_multi", "") and "ag_news" in targets
            assert text.count(row) == (2 if "imdb" in targets and not lost else 1), row
            assert not lost or text.count(row.replace("0082.10.9", "002.10.9")) == 1


def test_averages_of_table_1():
    """The moved average is the mean of its row to rounding. The tuned one is not: 93.8 printed, 94.05 by its row."""

    def off(method):
        return sum(lookup(1, task, method, None).mean for task in SOURCES) / 6 - lookup(1, "avg", method, None).mean

    assert abs(off("moved")) < 0.1
    assert off("tuned") == pytest.approx(0.25)


# the stars


def corners(number):
    """The printed mean and deviation to one decimal, moved to the ends of what rounds to them."""
    means, stds = (number.mean - 0.05, number.mean + 0.05), (max(0.0, number.std - 0.05), number.std + 0.05)
    # ends that are equal on paper must be equal here: 93.2 + 0.05 and 93.3 - 0.05
    return [Summary(round(mean, 2), round(std, 2), number.n) for mean in means for std in stds]


def starred(p, m):
    return bonferroni([p] + [1.0] * (m - 1))[0] < ALPHA  # the correction asks how many tests, not what they gave


def exceptions(tests, m):
    """Where the star that m comparisons give is not the one printed.

    `tests` maps (table, task, shots) to the best (in Table 1 the tuned), the second (the moved), and the printed star.
    Each exception is (*cell, printed star?, recomputed star?, p before correction, could rounding alone explain it?):
    whether some corner of what rounds to the printed means and deviations gives the printed star.
    """
    found = []
    for cell, (a, b, star) in tests.items():
        p = t_test(a, b).p
        if starred(p, m) != star:
            ends = [t_test(*pair).p for pair in itertools.product(corners(a), corners(b))]
            explained = starred(min(ends) if star else max(ends), m)
            found.append((*cell, star, not star, round(p, 3), explained == star))
    return found


def table_1():
    cells = {task: [lookup(1, task, method, None) for method in ("tuned", "moved")] for task in (*SOURCES, "avg")}
    return {(1, task, None): (tuned, moved, moved.star) for task, (tuned, moved) in cells.items()}


def table_4():
    """All six targets: Table 2 is its first half. Of two seconds with one mean the upper row is taken."""
    tests = {}
    for task, shots in itertools.product(TARGETS, SHOTS):
        found = best_against_second(column(4, task, shots))
        tests[4, task, shots] = (found.best_summary, found.second_summary, found.best_summary.star)
    return tests


def test_table_2_is_the_first_half_of_table_4():
    for task, shots in itertools.product(TARGETS[:3], SHOTS):
        assert column(2, task, shots) == column(4, task, shots)


def test_stars_of_table_1_follow_from_ten_runs_corrected_for_six_tasks():
    assert exceptions(table_1(), 6) == []
    # also with the average as a seventh; SST-2 (p = 0.011) would have a star below 5, QNLI (p = 0.0054) none above 9
    assert [m for m in range(1, 13) if not exceptions(table_1(), m)] == [5, 6, 7, 8, 9]
    assert exceptions(table_1(), 1) == [(1, "sst2", None, False, True, 0.011, False)]
    # SST-2 would also have one if the moved row's runs were its 100 combinations of starts.
    hundred = {
        cell: (tuned, Summary(moved.mean, moved.std, 100), star) for cell, (tuned, moved, star) in table_1().items()
    }
    assert exceptions(hundred, 6) == [(1, "sst2", None, False, True, 0.0, False)]


# Table 2's and 4's stars do not follow from their numbers: (table, task, shots, printed star?, recomputed star?,
# p, could rounding alone explain it?). p is before the correction; times 12, every p below but 0 is 1.
DO_NOT_FOLLOW = [
    (4, "ag_news", 100, True, False, 0.257, False),  # SPoT dbpedia_14 83.4 (0.6) v. sum 83.0 (0.9); also in Table 2
    (4, "snli", 0, True, False, 0.533, False),  # SPoT multi-task 79.6 (0.2) v. SPoT mnli 79.5 (0.3)
    (4, "snli", 100, True, False, 0.498, False),  # SPoT multi-task 81.0 (0.4) v. SPoT mnli 80.8 (0.4)
    (4, "yahoo_answers_topics", 0, False, True, 0.0, True),  # ATTEMPT 0.1 (0) v. random 0 (0)
    (4, "yahoo_answers_topics", 100, True, False, 0.662, False),  # SPoT dbpedia_14 61.3 (1.1) v. sum 61.1 (0.9)
    (4, "sst5", 0, True, False, 0.411, False),  # SPoT sst2 94.0 (0.3) v. SPoT multi-task 93.7 (0.5)
    (4, "sst5", 100, True, False, 0.768, False),  # SPoT sst2 93.9 (0.3) v. SPoT multi-task 93.8 (0.5)
]


def test_stars_of_tables_2_and_4_that_do_not_follow():
    assert exceptions(table_4(), 12) == DO_NOT_FOLLOW


def test_twelve_comparisons_make_most_stars_of_tables_2_and_4_follow():
    # none; the shots of a target; the targets of a number of shots, or Table 2; targets times shots
    assert {m: len(exceptions(table_4(), m)) for m in (1, 2, 6, 12)} == {1: 10, 2: 9, 6: 9, 12: 7}


def test_no_correction_makes_the_stars_of_tables_2_and_4_follow():
    """IMDB at 0 shots has no star, and less p than six columns that have one, whatever the rounding."""
    tests = table_4()
    a, b, star = tests.pop((4, "imdb", 0))
    assert not star
    most = max(t_test(*pair).p for pair in itertools.product(corners(a), corners(b)))
    worse = [
        (task, shots)
        for (_, task, shots), (one, two, star) in tests.items()
        if star and min(t_test(*pair).p for pair in itertools.product(corners(one), corners(two))) > most
    ]
    assert worse == [(task, shots) for _, task, shots, star, *_ in DO_NOT_FOLLOW if star]


def test_a_star_hangs_on_which_of_two_seconds_is_taken():
    # SciTail, 0 shots: SPoT mnli 70.4 (0.4, 10 runs) and SPoT multi-task 70.4 (1.2, 3 runs) are both second.
    best = lookup(2, "scitail", "sum", 0)
    assert starred(t_test(best, lookup(2, "scitail", "spot", 0, source="mnli")).p, 12)
    assert not starred(t_test(best, lookup(2, "scitail", "spot_multi", 0)).p, 1)


def test_only_the_best_has_a_star_in_tables_2_and_4():
    for table, targets in ((2, TARGETS[:3]), (4, TARGETS)):
        for task, shots in itertools.product(targets, SHOTS):
            numbers = column(table, task, shots)
            best = max(number.mean for number in numbers.values())
            assert all(number.mean == best for number in numbers.values() if number.star)
