"""The quickstart's rows, tables and page, from rows made up here."""

import pyarrow.parquet as pq
import pytest

from tpv.reporting import figures
from tpv.reporting import quickstart as report
from tpv.reporting.records import SCHEMA, Row, read_rows, write_rows
from tpv.reporting.tables import Table, mean_and_spread

PAIRS = (("mnli", "qnli"), ("dbpedia", "trec"), ("sst2", "yelp"))
TARGETS = {"snli": ("mnli", "qnli"), "imdb": ("sst2", "yelp")}
SOURCES = [name for pair in PAIRS for name in pair]


def made_up_rows():
    rows = []

    def add(experiment, task, method, sources, seed, value, metric="exact_match", shots=None, scale=None, **more):
        names = tuple(f"mini/{name}" for name in sources)
        fields = {"shots": shots, "scale": scale, "metric": metric, "value": value, "n": 400} | more
        rows.append(Row(experiment, f"mini/{task}", method, names, seed, **fields))

    for k, task in enumerate(SOURCES):
        for seed in (0, 1):
            for experiment, method, value in (
                ("sources", "untuned", 0.1),
                ("sources", "tuned", 0.9),
                ("cross_initialization", "tuned", 0.9),
                ("cross_initialization", "moved", 0.7),
            ):
                add(experiment, task, method, (task,), seed, value + 0.01 * k + 0.02 * seed)
            add("sources", task, "tuned", (task,), seed, 0.5, "majority")
    names = [(task, seed) for task in SOURCES for seed in (0, 1)]
    for a, (one, i) in enumerate(names):
        for two, j in names[a + 1 :]:
            add("similarity", one, "vectors", (one, two), i, 0.25 if one == two else 0.01, "cosine", vector_seed=j)
    for pair in PAIRS:
        for seed in (0, 1):
            for task in pair:
                for scale in (0.0, 0.5, 1.0):
                    add("combination", task, "sum", pair, seed, scale / 2, scale=scale, split="validation")
                add("combination", task, "sum", pair, seed, 0.45, scale=0.5)
    for target, pair in TARGETS.items():
        for seed in (0, 1):
            used = [("random", ()), *(("spot", (name,)) for name in pair), ("sum", pair)]
            for m, (method, sources) in enumerate(used):
                for shots in (0, 100):
                    add("transfer", target, method, sources, seed, 0.2 * m + shots / 1000, shots=shots)
    return rows


def test_rows_go_to_parquet_and_back(tmp_path):
    rows = made_up_rows()
    write_rows(rows, tmp_path / "results.parquet")
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.schema.equals(SCHEMA)
    assert read_rows(tmp_path / "results.parquet") == rows


def test_tables_hold_the_means_of_their_rows():
    rows = made_up_rows()
    cross = report.cross_table(rows)
    assert cross.rows[0] == ("mnli", "0.11 ± 0.01", "0.91 ± 0.01", "0.71 ± 0.01", "0.50")
    pairs = report.combination_table(rows)
    assert pairs.rows[0] == ("mnli + qnli", "mnli", "0.5, 0.5", "0.45 ± 0.00", "0.91 ± 0.01", "49%")
    new = report.transfer_table(rows)
    assert new.rows[3] == (new.rows[0][0], "sum", "0.60 ± 0.00", "0.70 ± 0.00")
    assert {(3, 2), (3, 3), (7, 2), (7, 3)} == new.best


def test_the_page_is_whole_self_contained_and_escaped(tmp_path):
    rows = made_up_rows()
    hostile = "<script>alert(1)</script>"
    rows = [Row(**{**vars(row), "method": row.method.replace("random", hostile)}) for row in rows]
    tables = report.write(rows, tmp_path / "report.html", seconds=1.0)
    page = (tmp_path / "report.html").read_text()
    for table in tables:
        for row in table.rows:
            assert row[0] in page
            assert row[-1] in page
    assert hostile not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 5
    for outside in ("http://", "https://", "src=", "@import", "url("):
        assert outside not in page.replace("http://www.w3.org/", "").replace("xlink:href", "").replace("url(#", "")
    assert 'name="viewport"' in page


def test_a_missing_score_is_an_error_not_a_zero():
    rows = [row for row in made_up_rows() if row.method != "moved"]
    with pytest.raises(KeyError, match="moved"):
        report.cross_table(rows)


def test_equal_input_gives_an_equal_figure():
    one, two = (figures.svg(figures.grouped_bars(["a", "b"], {"x": [0.1, 0.2]}, "y")) for _ in range(2))
    assert one == two


def test_mean_and_spread_is_the_sample_deviation():
    assert mean_and_spread([0.5]) == "0.50"
    assert mean_and_spread([0.2, 0.4, 0.9]) == "0.50 ± 0.36"


def test_a_table_prints_on_a_terminal(capsys):
    from rich.console import Console

    Console(width=60).print(Table("T", ("a", "b"), [("x", "1"), ("[red]y", "2")], best={(0, 1)}).as_rich())
    assert "[red]y" in capsys.readouterr().out
