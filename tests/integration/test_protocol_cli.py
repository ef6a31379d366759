"""`tpv plan`, `tpv run` and `tpv report` as a user types them."""

import os
import re
import shutil
import subprocess
import sys

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from places import CONFIGS

OFFLINE = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def tpv(*arguments, code=0):
    environment = {key: value for key, value in os.environ.items() if key != "TPV_DATA_DIR"} | OFFLINE
    done = subprocess.run(
        [sys.executable, "-m", "tpv.cli", *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def lines(output):
    """The cells of every line of the tables that were printed."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line]


def test_the_papers_plan_needs_neither_network_nor_model(tmp_path):
    output, _ = tpv("plan", CONFIGS / "paper.toml", "--out", tmp_path / "none")
    rows = lines(output)
    counts = {tuple(row[:3]): int(row[3]) for row in rows if len(row) == 8}
    assert counts["sources", "source prompts", "tuned"] == 60
    crossed = {key[2]: count for key, count in counts.items() if key[0] == "cross_initialization"}
    assert crossed == {"tuned": 60, "moved": 540}
    assert counts["combination", "pair searches", ""] == 150
    shots = ["0", "5", "10", "25", "50", "100", "250", "500", "750", "1000"]
    by_method = {row[0]: dict(zip(shots, row[1:], strict=True)) for row in rows if len(row) == 11}
    assert list(by_method)[:3] == ["random", "SPoT mnli", "SPoT qnli"]
    # 6 targets x 10 starts; 3 starts for what trains on several tasks; topic tasks begin at 10 shots
    assert by_method["random"]["0"] == "0 + 60"
    assert by_method["random"]["5"] == "40 + 40"
    assert by_method["sum"]["1000"] == "60 + 60"
    assert by_method["SPoT multi-task"]["100"] == "18 + 18"
    assert by_method["ATTEMPT"]["100"] == "9 + 18"
    assert by_method["SPoT trec"]["5"] == ""
    assert "No estimate of time" in output
    assert not (tmp_path / "none").exists()


def test_mistakes_are_one_line(tmp_path):
    (tmp_path / "bad.toml").write_text(f'extends = "{CONFIGS}/smoke.toml"\n[transfer]\nshotss = [0]\n')
    for arguments, message in (
        (("plan", tmp_path / "bad.toml"), "transfer.shotss: unknown key, did you mean 'shots'?"),
        (("run", tmp_path / "none.toml"), "cannot be read"),
        (("run", CONFIGS / "smoke.toml", "--only", "transfers"), "did you mean 'transfer'?"),
        (("run", CONFIGS / "smoke.toml", "--limit", "0"), "--limit"),
        (("report", tmp_path), "is no run directory"),
        (("report", tmp_path, tmp_path, tmp_path), "one, or two to compare"),
    ):
        output, errors = tpv(*arguments, "--out", tmp_path / "out", code=2)
        assert message in errors, errors
        assert errors.count("\n") == 1
        assert not output
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "smoke run"
    output, errors = tpv("run", CONFIGS / "smoke.toml", "--out", folder)
    assert "143 of 143 jobs run now" in output
    assert re.search(r"\[143/143\] ", errors)
    return folder


def test_a_run_is_planned_finished_and_reported(finished, tmp_path):
    output, _ = tpv("run", CONFIGS / "smoke.toml", "--out", finished)
    assert "all 143 jobs are done" in output
    output, _ = tpv("plan", CONFIGS / "smoke.toml", "--out", finished)
    assert "143 different jobs, 143 done" in output
    output, _ = tpv("report", finished)
    assert f"wrote {finished / 'report.html'}" in output
    page = (finished / "report.html").read_text()
    for method in ("ATTEMPT", "SPoT multi-task", "SPoT mnli", "random", "sum"):
        assert method in page
    figures, tables = ({path.name for path in (finished / kind).iterdir()} for kind in ("figures", "tables"))
    assert {"similarity_vectors.svg", "similarity_vectors.png", "negation.png", "lambda.svg"} <= figures
    assert {"table1.csv", "table1.tex", "table3.csv", "significance.csv"} <= tables
    rows = pq.read_table(finished / "results.parquet").to_pylist()
    tuned = [
        row["value"]
        for row in rows
        if (row["experiment"], row["method"], row["task"], row["metric"])
        == ("cross_initialization", "moved", "mini/mnli", "exact_match")
    ]
    table = pyarrow.csv.read_csv(finished / "tables" / "table1.csv").to_pylist()
    (moved,) = [row for row in table if "another initialization" in next(iter(row.values()))]
    assert any(
        value == pytest.approx(100 * sum(tuned) / len(tuned)) for value in moved.values() if isinstance(value, float)
    )


def test_two_runs_are_put_side_by_side(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    before = (finished / "results.parquet").stat().st_mtime_ns
    output, _ = tpv("report", finished, other, "--out", tmp_path / "both")
    assert "comparison.html" in output
    page = (tmp_path / "both" / "comparison.html").read_text()
    assert "B − A" in page
    assert (finished / "results.parquet").stat().st_mtime_ns == before
