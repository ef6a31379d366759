"""The report of an experiment run, from rows made up here: its numbers against separate calculations."""

import csv
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from itertools import combinations

import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest
from made_up import EXAMPLES, FAMILIES, SHOTS, SOURCES, STARTS, TARGETS, WORDS, made_up, study
from scipy import stats

from tpv import TpvError
from tpv.registry import register
from tpv.reporting.about import Kind, kind
from tpv.reporting.compare import write_comparison
from tpv.reporting.results import Results
from tpv.reporting.study import FamilyInfo, write_report
from tpv.reporting.tables import Table, Value, tex
from tpv.reporting.targets import few


def values(rows, **wanted):
    wanted = {"metric": "exact_match", "split": "test"} | wanted
    return [row.value for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]


def check(cell, numbers, unit=100):
    """The cell is the mean and sample deviation that numpy finds."""
    numbers = unit * np.array(numbers)
    assert isinstance(cell, Value)
    assert cell.mean == pytest.approx(numbers.mean())
    assert cell.n == len(numbers)
    if cell.n > 1:
        assert cell.std == pytest.approx(numbers.std(ddof=1), abs=1e-9)


def by_name(tables):
    return {table.name: table for table in tables}


NEGATIONS = {"sum - own vector": "sum_own", "tuned - other initialization's vector": "tuned_other"}


def section(name, results):
    """The section of one experiment."""
    return register.experiment[name].thing.section(results).sections[0]


def how_of(row):
    """What tables call a row."""
    return study().named(kind(row))


def how(shown):
    """The fields of the rows that a table calls by this name."""
    _, _, source = shown.partition("SPoT ")
    if source == "multi-task":
        return {"method": "spot_multi"}
    return {"method": "spot", "sources": (source,)} if source else {"method": shown.lower()}


@pytest.fixture(scope="module")
def made():
    return made_up()


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return out, by_name(write_report(out, study(), *made))


def test_table_1_is_what_numpy_and_scipy_say(made, written):
    rows, _, _ = made
    table = written[1]["table1"]
    assert table.columns == ("method", *SOURCES, "average")
    stars = 0
    for method, row in zip(("tuned", "moved"), table.rows, strict=False):
        for task, cell in zip(SOURCES, row[1:], strict=False):
            check(cell, values(rows, experiment="cross_initialization", task=task, method=method))
        runs = [(i, j) for i in STARTS for j in STARTS if (i == j) == (method == "tuned")]
        check(
            row[-1],
            [np.mean(values(rows, experiment="cross_initialization", init_seed=i, vector_seed=j)) for i, j in runs],
        )
    for task, cell in zip(SOURCES, table.rows[1][1:], strict=False):
        found = {"experiment": "cross_initialization", "task": task}
        tuned = values(rows, method="tuned", **found)
        moved = [np.mean(values(rows, method="moved", vector_seed=j, **found)) for j in STARTS]
        significant = stats.ttest_ind(tuned, moved).pvalue * len(SOURCES) < 0.05
        assert cell.star == significant
        test = next(row for row in written[1]["significance"].rows if row[0] == f"Table 1: {task}")
        means = {"prompt tuning": test[3], "vector on another start": test[4]}
        if test[1] != "prompt tuning":
            means = {"prompt tuning": test[4], "vector on another start": test[3]}
        check(means["prompt tuning"], tuned)
        check(means["vector on another start"], moved)
        stars += significant
    assert 0 < stars < len(SOURCES)


def test_transfer_tables_are_what_numpy_and_scipy_say(made, written):
    rows, _, _ = made
    part = [row for row in rows if row.experiment == "transfer"]
    for prefix, shots in (("table4", (0, 100)), ("shots", SHOTS)):
        pairs = [(t, s) for t in TARGETS for s in shots if not (t == "scitail" and s == 10)]
        starred = []
        for file, family in zip(("1_nli", "2_sentiment"), FAMILIES, strict=True):
            table = written[1][f"{prefix}_{file}"]
            methods = ["random", *(f"SPoT {name}" for name in family.sources), "SPoT multi-task", "ATTEMPT", "sum"]
            assert [row[1] for row in table.rows] == methods * len(family.targets)
            for t, target in enumerate(family.targets):
                metric = "macro_f1" if target == "sst5" else "f1"
                for shot in shots:
                    if (target, shot) not in pairs:
                        assert f"{shot} shots" not in table.columns
                        continue
                    column = table.columns.index(f"{shot} shots")
                    first = t * len(methods)
                    groups = {m: values(part, task=target, shots=shot, metric=metric, **how(m)) for m in methods}
                    for i, method in enumerate(methods):
                        check(table.rows[first + i][column], groups[method])
                    order = sorted(methods, key=lambda m: -np.mean(groups[m]))
                    marks = [
                        {table.rows[r][1] for r, c in marked if c == column and first <= r < first + len(methods)}
                        for marked in (table.best, table.second)
                    ]
                    assert marks == [{order[0]}, {order[1]}]
                    best, second = (groups[method] for method in order[:2])
                    p = stats.ttest_ind(best, second, equal_var=len(best) == len(second)).pvalue
                    for i, method in enumerate(methods):
                        star = table.rows[first + i][column].star
                        assert star == (method == order[0] and p * len(pairs) < 0.05)
                        starred.append(star)
        assert any(starred), "the made-up rows should have a significant cell"


def test_the_papers_numbers_stand_beside_its_own_model_and_tasks_only(made, written):
    rows, timings, predictions = made
    table = written[1]["table4_1_nli"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert str(row["paper, 0"]) == "54.9 ± 6.6"
    assert row["ours − paper, 0"].mean == pytest.approx(row["0 shots"].mean - 54.9)
    assert str(row["paper, 100"]) == "75.6 ± 0.5"
    one = {row[0]: row for row in written[1]["table1"].rows}
    assert [str(cell) for cell in one["paper: vector on another initialization"][1:]] == [
        "85.3 ± 0.2",
        "93.2 ± 0.1*",
        "93.2 ± 0.6",
        "97.1 ± 0.1*",
        "–",
    ]
    assert one["ours − paper: prompt tuning"][1].mean == pytest.approx(one["prompt tuning"][1].mean - 85.4)

    def paper_cells(about, rows):
        results = Results(about, rows, timings, predictions)
        tables = [*section("cross_initialization", results).tables, *section("transfer", results).tables]
        return [
            (table.name, row[0])
            for table in tables
            for row in table.rows
            for name, cell in zip(table.columns, row, strict=True)
            if isinstance(cell, Value) and ("paper" in name or "paper" in row[0])
        ]

    assert not any("sst5" in row for _, row in paper_cells(study(), rows))
    assert any("sst5" in row for _, row in paper_cells(study(compat=True), rows))
    assert not paper_cells(study(model="t5-small"), rows)
    others, _, _ = made_up("mini/")
    assert not paper_cells(study(prefix="mini/"), others)
    two_more = [
        replace(row, task=name, value=row.value / 2)
        for name in ("trec", "dbpedia_14")
        for row in rows
        if row.experiment == "cross_initialization" and row.task == "sst2"
    ]
    six = section("cross_initialization", Results(study(), [*rows, *two_more])).tables[0]
    assert str(six.rows[2][-1]) == "93.8 ± 0.1"


def test_sums_are_relative_to_tuning(made, written):
    rows, _, _ = made
    table = written[1]["combination"]
    kept = 0
    for pair, (a, b) in enumerate(combinations(SOURCES, 2)):
        shares = []
        for k, task in enumerate((a, b)):
            row = table.rows[2 * pair + k]
            assert row[:2] == (f"{a} + {b}", task)
            summed = values(rows, experiment="combination", sources=(a, b), task=task)
            tuned = values(rows, experiment="sources", task=task, method="tuned")
            check(row[2], [0.5, 0.75, 0.5], unit=1)
            check(row[3], summed)
            check(row[4], tuned)
            shares.append(np.mean(summed) / np.mean(tuned))
            assert row[5].mean == pytest.approx(shares[-1])
        good = min(shares) > 0.5
        kept += good
        assert [table.rows[2 * pair + k][6] for k in (0, 1)] == ["yes" if good else "no"] * 2
        assert all(((2 * pair + k, 0) in table.best) == good for k in (0, 1))
    assert 0 < kept < 6


@pytest.mark.parametrize("kind", ["prompts", "vectors"])
def test_similarity_is_averaged_over_pairs_of_starts(made, written, kind):
    part = [row for row in made[0] if row.experiment == "similarity" and row.method == kind]
    table = written[1][f"similarity_{kind}"]
    for i, a in enumerate(SOURCES):
        for j, b in enumerate(SOURCES):
            cell = table.rows[i][1 + j]
            if j > i:
                assert cell == ""
            else:
                check(cell, [row.value for row in part if {*row.sources} == {a, b}], unit=1)
    groups = {}
    for row in part:
        a, b = row.sources
        groups.setdefault((a == b, row.init_seed == row.vector_seed), []).append(row.value)
    alike = next(row for row in written[1]["similarity_starts"].rows if row[0] == kind)
    for cell, key in zip(alike[1:], ((True, False), (False, True), (False, False)), strict=True):
        check(cell, groups[key], unit=1)


def test_a_pairs_cosine_is_found_whichever_way_round_it_was_stored(made):
    rows = [row for row in made[0] if row.experiment == "similarity"]
    turned = [
        replace(row, sources=row.sources[::-1], init_seed=row.vector_seed, vector_seed=row.init_seed) for row in rows
    ]
    one, two = (section("similarity", Results(study(), of)).tables for of in (rows, turned))
    for a, b in zip(one, two, strict=True):
        assert [[str(cell) for cell in row] for row in a.rows] == [[str(cell) for cell in row] for row in b.rows]


def test_drops_are_taken_within_a_run(made, written):
    rows, _, _ = made
    table = written[1]["negation_drop"]
    assert table.columns[4:] == ("0.5", "1")
    assert len(table.rows) == 2 * 2 * 6
    for row in table.rows:
        found = {
            "experiment": "negation",
            "sources": tuple(row[0].split(" + ")),
            "method": NEGATIONS[row[1]],
            "task": row[2],
        }
        related = any(set(found["sources"]) <= set(family.sources) for family in study().families)
        control = "control" if related else "control, another family"
        assert row[3] == ("forgotten" if row[0].startswith(row[2] + " ") else control)
        for scale, cell in zip((0.5, 1.0), row[4:], strict=True):
            whole, lost = (np.array(values(rows, scale=s, **found)) for s in (0.0, scale))
            check(cell, whole - lost)


def test_other_tables(made, written):
    rows, timings, _ = made
    tables = written[1]
    for row in tables["sources"].rows:
        part = [r for r in rows if r.experiment == "sources" and r.task == row[0]]
        check(row[1], values(part, method="untuned"))
        for cell, metric in zip(row[2:7], ("exact_match", "macro_f1", "f1", "invalid_rate", "majority"), strict=True):
            if metric == "f1" and len(WORDS[row[0]]) > 2:
                assert cell == "–"
            else:
                check(cell, values(part, method="tuned", metric=metric))
        assert row[7] == str(EXAMPLES)
    for row in tables["label_coverage"].rows:
        for method, cell in zip(tables["label_coverage"].columns[1:], row[1:], strict=True):
            numbers = values(rows, experiment="transfer", task=row[0], metric="label_coverage", **how(method))
            assert (cell == "–") if not numbers else (cell.mean == pytest.approx(100 * np.mean(numbers)))
    for row in tables["cost"].rows:
        for size, cell in zip((1, 2, 3), row[2:], strict=True):
            check(cell, values([*rows, *timings], experiment="cost", metric=row[1], shots=size, **how(row[0])), unit=1)
    assert [(row[0], *row[2:]) for row in tables["table3"].rows] == [
        ("SPoT multi-task", "2.00", "no"),
        ("ATTEMPT", "1.33", "no"),
        ("vectors", "1.00", "yes"),
    ]


def test_the_significance_table_holds_every_test(made, written):
    rows, _, _ = made
    table = written[1]["significance"]
    cells = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    groups = {
        kind: [cell for cell in cells if cell["comparison"].startswith(kind)] for kind in ("Table 1", "Tables 2", "All")
    }
    assert [len(group) for group in groups.values()] == [4, 6, 11]
    for cell in groups["Tables 2"]:
        target, shots = re.fullmatch(r"Tables 2 and 4: (\w+), (\d+) shots", cell["comparison"]).groups()
        metric = "macro_f1" if target == "sst5" else "f1"
        found = [
            r for r in rows if (r.experiment, r.task, r.shots, r.metric) == ("transfer", target, int(shots), metric)
        ]
        best, second = ([r for r in found if how_of(r) == cell[name]] for name in ("best", "second"))
        a, b = ([r.value for r in of] for of in (best, second))
        check(cell["mean of best"], a)
        check(cell["mean of second"], b)
        p = stats.ttest_ind(a, b, equal_var=len(a) == len(b)).pvalue
        assert cell["t test"] == ("Student" if len(a) == len(b) else "Welch")
        assert cell["p"] in (f"{p:.2g}", "<0.0001")
        assert cell["Bonferroni"] in (f"{min(1, p * 6):.2g}", "<0.0001")
        # predictions and scores are made by different lines of this file, so that this holds the two together
        assert cell["bootstrap difference"].mean == pytest.approx(100 * (np.mean(a) - np.mean(b)))
        low, high = map(float, cell["95 % interval"].split(" to "))
        assert low <= cell["bootstrap difference"].mean + 0.05
        assert high >= cell["bootstrap difference"].mean - 0.05
    ps = sorted(float(c["p"].strip("<")) for c in groups["Tables 2"])
    assert float(min(groups["Tables 2"], key=lambda c: float(c["p"].strip("<")))["Holm"].strip("<")) == pytest.approx(
        min(1, ps[0] * 6), rel=0.1, abs=1e-3
    )
    assert all(cell["bootstrap p"] == "–" for cell in groups["All"])


def test_intervals_are_those_of_each_score(made, written):
    rows, _, predictions = made
    table = written[1]["intervals"]
    cells = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    pairs = len(list(combinations(SOURCES, 2)))
    assert Counter(cell["what"] for cell in cells) == Counter(
        {"source task": 2 * len(SOURCES), "on another initialization": len(SOURCES), "sum": 2 * pairs}
        | {f"target, {shots} shots": sum(len(family.sources) + 4 for family in TARGETS.values()) for shots in (0, 100)}
    )
    for cell in cells:
        low, high = map(float, cell["95 % interval"].split(" to "))
        assert low - 0.1 <= cell["mean"].mean <= high + 0.1
        assert cell["examples"] == str(EXAMPLES)
    chosen = next(c for c in cells if (c["what"], c["task"], c["method"]) == ("source task", "mnli", "tuned"))
    mine = values(rows, experiment="sources", task="mnli", method="tuned")
    assert chosen["mean"].mean == pytest.approx(100 * np.mean(mine))
    hits = np.zeros(EXAMPLES)
    jobs = {row.job for row in rows if (row.experiment, row.task, row.method) == ("sources", "mnli", "tuned")}
    for job in jobs:
        scored = predictions(job, "mnli")
        hits += np.array(scored["gold"].to_pylist()) == np.array(scored["said"].to_pylist())
    drawn = np.random.default_rng(1).choice(100 * hits / len(jobs), (4000, EXAMPLES)).mean(axis=1)
    low, high = map(float, chosen["95 % interval"].split(" to "))
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.8)


def test_the_page_is_there_as_markdown(written):
    text = (written[0] / "report.md").read_text()
    for table in written[1].values():
        lines = table.markdown().splitlines()
        assert table.markdown().strip() in text
        body = [line for line in lines if line.startswith("| ")]
        assert len(body) == len(table.rows) + 2
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {len(table.columns) + 1}


def test_runs_on_other_examples_are_not_compared(made, tmp_path):
    rows, timings, predictions = made

    def shuffled(job, task):
        table = predictions(job, task)
        return table.set_column(0, "example", [table["example"].to_pylist()[:: -1 if job.endswith("7") else 1]])

    with pytest.raises(TpvError, match="examples"):
        write_report(tmp_path, study(), rows, timings, shuffled)


def test_missing_scores_are_blank_and_counted(made):
    rows, timings, predictions = made
    gone = {"task": "imdb", "method": "sum", "shots": 100}
    some = [row for row in rows if any(getattr(row, key) != value for key, value in gone.items())]
    some = [
        replace(row, value=math.nan)
        if (row.experiment, row.task, row.method, row.init_seed) == ("cross_initialization", "mnli", "tuned", 0)
        else row
        for row in some
    ]
    results = Results(study(), some, timings, predictions)
    table = by_name(section("transfer", results).tables)["table4_2_sentiment"]
    row = next(row for row in table.rows if row[0].startswith("imdb") and row[1] == "sum")
    cells = dict(zip(table.columns, row, strict=True))
    assert cells["100 shots"] == cells["ours − paper, 100"] == "–"
    assert cells["0 shots"].n == 3
    assert "65 of 68 scores present" in table.note
    table = section("cross_initialization", results).tables[0]
    assert table.rows[0][1].n == 2
    assert "35 of 36 scores present" in table.note
    whole = by_name(section("transfer", Results(study(), rows)).tables)["table4_2_sentiment"]
    assert "68 of 68 scores present" in whole.note


def test_a_single_start_has_neither_deviation_nor_test(made):
    rows = [row for row in made[0] if row.init_seed == 0]
    chapter = register.experiment["transfer"].thing.section(Results(study(), rows))
    verdicts = chapter.verdicts
    cells = [
        cell
        for row in by_name(chapter.sections[0].tables)["table4_1_nli"].rows
        for cell in row
        if isinstance(cell, Value)
    ]
    assert not any(cell.star for cell in cells if cell.n == 1)
    assert all("±" not in str(cell) for cell in cells if cell.n == 1)
    assert verdicts
    assert not any(verdict.comparison.test or verdict.star for verdict in verdicts)


EXPERIMENTS = ("sources", "cross_initialization", "similarity", "combination", "transfer", "negation", "cost")


@pytest.mark.parametrize("absent", EXPERIMENTS)
def test_an_experiment_without_rows_was_not_run(made, absent):
    rows, timings, _ = made
    results = Results(study(), [r for r in rows if r.experiment != absent], [t for t in timings if absent != "cost"])
    sections = {name: section(name, results) for name in EXPERIMENTS}
    for name, one in sections.items():
        assert one.text.startswith("Not run") == (name == absent)
        assert bool(one.tables) == (name != absent)


def test_no_rows_at_all_make_a_page_too(tmp_path):
    tables = write_report(tmp_path, study(), [], [], lambda job: pa.table({}))
    assert [table.name for table in tables] == ["settings"]
    assert (tmp_path / "report.html").read_text().count("Not run") == len(EXPERIMENTS)


def test_only_validation_scores_of_sums_draw_the_search(made):
    rows = [row for row in made[0] if row.experiment == "combination" and row.split == "validation"]
    found = section("combination", Results(study(), rows))
    assert [figure.name for figure in found.figures] == ["lambda"]
    assert found.text.startswith("Not run")


def test_csv_files_parse_back_to_the_tables(written):
    out, tables = written
    for name, table in tables.items():
        with (out / "tables" / f"{name}.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(table.rows)
        for line, row in zip(lines, table.rows, strict=True):
            for column, cell in zip(table.columns, row, strict=True):
                if isinstance(cell, Value):
                    assert float(line[column]) == cell.mean
                    if cell.n > 1 and cell.std is not None:
                        assert float(line[f"{column} (deviation)"]) == cell.std
                        assert int(line[f"{column} (runs)"]) == cell.n
                    if cell.star:
                        assert line[f"{column} (significant)"] == "1"
                else:
                    assert line[column] == ("" if cell == "–" else cell)


def test_latex_has_a_cell_for_every_column(written):
    out, tables = written
    for name, table in tables.items():
        text = (out / "tables" / f"{name}.tex").read_text()
        assert re.search(r"\\begin{tabular}{([lr]+)}", text)[1].__len__() == len(table.columns)
        body = [line for line in text.splitlines() if line.endswith(r" \\")]
        assert len(body) == len(table.rows) + 1
        assert all(len(re.split(r"(?<!\\)&", line)) == len(table.columns) for line in body)
        assert text.isascii()


def test_a_value_prints_as_text_html_and_latex():
    value = Value(93.24, 0.05, 10, star=True)
    assert str(value) == "93.2 ± 0.1*"
    assert value.__html__() == "93.2<sub>0.1</sub><sup>*</sup>"
    assert value.tex(r"\mathbf") == r"$\mathbf{93.2}_{0.1}^{*}$"
    assert value.tex() == "$93.2_{0.1}^{*}$"
    assert str(Value(-0.04, signed=True)) == "0.0"
    assert str(Value(1.26, signed=True)) == "+1.3"
    assert Value(-1.26).__html__() == "−1.3"


def test_hostile_names_stay_text(made, tmp_path):
    rows, timings, predictions = made
    bad = r"<img src=x onerror=alert(1)>&$\frac_%#{}~^[1]*"

    def hostile(text):
        return text.replace("sst2", bad).replace("random", f"{bad} start")

    rows = [
        replace(r, task=hostile(r.task), sources=tuple(map(hostile, r.sources)), method=hostile(r.method)) for r in rows
    ]
    about = study()
    tasks = {hostile(name): replace(info, name=hostile(name)) for name, info in about.tasks.items()}
    families = tuple(
        FamilyInfo(f"{bad} {f.name}", tuple(map(hostile, f.sources)), tuple(map(hostile, f.targets)))
        for f in about.families
    )
    about = replace(about, name=bad, tasks=tasks, families=families, facts=[(bad, bad)], made_with=bad)
    tables = write_report(tmp_path, about, rows, timings, predictions)
    page = (tmp_path / "report.html").read_text()
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;$" in page
    for table in tables:
        text = (tmp_path / "tables" / f"{table.name}.tex").read_text()
        assert r"\frac" not in text
        assert "<" not in text
        with (tmp_path / "tables" / f"{table.name}.csv").open(newline="") as file:
            assert len(list(csv.reader(file))) == len(table.rows) + 1
    assert any(r"\textbackslash{}frac\_\%\#\{\}" in table.tex() for table in tables)
    for file in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(file)


def test_latex_escapes_what_latex_reads():
    assert tex("a_b & 5 % \n $x$") == r"a\_b \& 5 \% \$x\$"
    assert tex(chr(92)) == r"\textbackslash{}"


def test_figures_are_there_and_not_empty(written):
    out, _ = written
    drawn = {file.stem for file in (out / "figures").iterdir()}
    assert drawn == {
        "cross_initialization",
        "similarity_prompts",
        "similarity_vectors",
        "similarity_by_start_prompts",
        "similarity_by_start_vectors",
        "lambda",
        "combination_kept",
        "combination_all",
        "shots_1_nli",
        "shots_2_sentiment",
        "negation",
        "cost_steps",
        "cost_seconds",
    }
    for name in drawn:
        pixels = matplotlib.image.imread(out / "figures" / f"{name}.png")[..., :3]
        assert min(pixels.shape[:2]) > 300
        assert pixels.std() > 0.02
        assert (pixels[[0, -1]] == 1).all(), "something is cut off at the edge"
        assert ElementTree.parse(out / "figures" / f"{name}.svg").getroot().tag.endswith("svg")
    page = (out / "report.html").read_text()
    assert page.count("<svg") == len(drawn) == page.count("<figcaption>")
    assert all(
        'experiment "' in caption or "experiment &#34;" in caption
        for caption in re.findall("<figcaption>(.*?)</figcaption>", page)
    )


def test_every_table_says_what_it_is_made_from(written):
    for name, table in written[1].items():
        if name not in ("settings", "significance"):
            assert "Rows of results.parquet: experiment" in table.note


def test_the_page_refers_to_nothing_outside(written):
    page = (written[0] / "report.html").read_text()
    inside = page.replace("http://www.w3.org/", "").replace("url(#", "")
    for outside in ("http://", "https://", "src=", "@import", "url(", "<script", "<link"):
        assert outside not in inside
    targets = set(re.findall(r'href="([^"]+)"', page))
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    ids = re.findall(r' id="([^"]+)"', page)
    assert {target[1:] for target in targets if target[0] == "#"} <= set(ids)
    for anchor in re.findall(r'<a href="#(s\d+)"', page):
        assert f'<h2 id="{anchor}"' in page
    assert 'name="viewport"' in page


def test_equal_rows_make_equal_files_and_an_old_report_goes(made, written, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.png").write_bytes(b"old")
    (tmp_path / "results.parquet").write_bytes(b"mine")
    write_report(tmp_path, study(), *made)
    files = {path.relative_to(written[0]) for path in written[0].rglob("*") if path.is_file()}
    again = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert again == {*files, (tmp_path / "results.parquet").relative_to(tmp_path)}
    for name in files:
        assert (written[0] / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_names_lose_the_folder_that_all_share():
    about = study(prefix="mini/")
    assert about.short("mini/sst2") == "sst2"
    assert about.named(Kind("spot", sources=("mini/sst2",))) == "SPoT sst2"
    assert about.joined(("mini/sst2", "mini/mnli")) == "sst2 + mnli"
    mixed = replace(about, tasks={**about.tasks, "sst2": study().tasks["sst2"]})
    assert mixed.short("mini/sst2") == "mini/sst2"


@pytest.mark.parametrize(
    ("shots", "shown"), [((0, 10, 100), [0, 100]), ((0, 40, 250), [0, 40]), ((0,), [0]), ((5, 90), [90]), ((), [])]
)
def test_the_shots_nearest_100_are_shown(shots, shown):
    assert few(shots) == shown


def test_two_runs_side_by_side(made, tmp_path):
    rows, _, _ = made
    others, _, _ = made_up(seed=1)
    others = [row for row in others if row.method != "attempt"]
    a, b = study(), study(name="the <other>", facts=[("tokens", "100")])
    tables = write_comparison(tmp_path, (a, rows), (b, others))
    assert [tuple(row) for row in tables[0].rows] == [("name", "made up", "the <other>"), ("tokens", "20", "100")]
    with (tmp_path / "comparison.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    seen = {}
    for line in lines:
        found = {
            "experiment": line["experiment"],
            "task": line["task"],
            "metric": {"F1": "f1", "macro-F1": "macro_f1"}.get(line["metric"], "exact_match"),
        }
        name, _, summed = line["method"].partition(" of ")
        found |= how(name) | ({"sources": tuple(summed.split(" + "))} if summed else {})
        if line["shots"]:
            found["shots"] = int(line["shots"])
        means = [100 * np.mean(numbers) if (numbers := values(of, **found)) else None for of in (rows, others)]
        for name, mean in zip("AB", means, strict=True):
            assert line[name] == "" if mean is None else float(line[name]) == pytest.approx(mean)
        both = None not in means
        assert line["B − A"] == "" if not both else float(line["B − A"]) == pytest.approx(means[1] - means[0])
        seen.setdefault(line["experiment"], []).append(both)
    assert {name: len(of) for name, of in seen.items()} == {
        "sources": 8,
        "cross_initialization": 8,
        "combination": 12,
        "transfer": 66,
    }
    assert seen["transfer"].count(False) == 11
    page = (tmp_path / "comparison.html").read_text()
    assert "the &lt;other&gt;" in page
    assert "55 scores are in both runs, 11 in one only." in page


def test_a_run_beside_itself_does_not_differ(made, tmp_path):
    tables = write_comparison(tmp_path, (study(), made[0]), (study(), made[0]))
    assert "All settings are the same." in (tmp_path / "comparison.html").read_text()
    assert all(row[-1].mean == 0 for table in tables for row in table.rows)


def test_a_plain_table_still_prints():
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    table = Table("T", ("a", "b"), [("x", Value(1.0, 0.1, 3)), ("y", "–")], best={(0, 1)}, second={(1, 1)})
    console.print(table.as_rich())
    assert "1.0 ± 0.1" in console.file.getvalue()
