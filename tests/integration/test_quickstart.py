"""The demonstration itself, hurried in the fast tests, and once as a user runs it."""

import io
import os
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import tpv
from tpv import mini, quickstart
from tpv.studies.records import SCHEMA, Row


@pytest.fixture
def hurried(monkeypatch):
    """The quickstart with next to no training: everything runs, nothing is learnt."""
    monkeypatch.setattr(quickstart, "SOURCE_RECIPE", tpv.Recipe(steps=2, batch_size=2, select="last"))
    monkeypatch.setattr(quickstart, "FEW_SHOT_RECIPE", tpv.Recipe(steps=2, batch_size=2, select="last"))
    monkeypatch.setattr(quickstart, "LAMBDAS", (0.0, 1.0))
    small = dict.fromkeys(("train", "validation", "test"), 40)
    whole = quickstart.load_task

    def load(name):
        task = whole(name)
        return replace(task, splits={split: rows[: small[split]] for split, rows in task.splits.items()})

    monkeypatch.setattr(quickstart, "load_task", load)
    monkeypatch.setattr(quickstart, "SHOTS", 10)


def test_every_row_of_the_quickstart_can_be_made_again(hurried, tmp_path, backbone):
    rows = quickstart.run(tmp_path, seed=5, console=Console(file=io.StringIO()))
    table = pq.read_table(tmp_path / "results.parquet")
    assert [Row(**row) for row in table.to_pylist()] == rows
    assert {row.init_seed for row in rows} == {5, 6}
    assert {row.experiment for row in rows} == {
        "cross-initialisation",
        "similarity",
        "lambda search",
        "combination",
        "transfer",
    }
    # a moved vector, scored again from the files the run left
    vector = tpv.TaskPromptVector.load(tmp_path / "vectors" / "trec-init5.safetensors")
    init = tpv.SoftPrompt.load(tmp_path / "inits" / "init6.safetensors")
    assert init == tpv.SoftPrompt.sample(backbone, quickstart.NUM_TOKENS, seed=6)
    task = quickstart.load_task("mini/trec")
    (row,) = [
        row
        for row in rows
        if (row.method, row.task, row.init_seed, row.metric) == ("moved", "mini/trec", 6, "macro_f1")
    ]
    assert row.value == tpv.evaluate(backbone, task, init + vector).macro_f1
    assert row.n == 40
    # a cosine, against float64
    other = tpv.TaskPromptVector.load(tmp_path / "vectors" / "sst2-init6.safetensors")
    (row,) = [row for row in rows if row.sources == "mini/trec+mini/sst2" and row.method == "seed 5 v. seed 6"]
    one, two = vector.tensor.double().flatten(), other.tensor.double().flatten()
    assert row.value == pytest.approx(float(one @ two / one.norm() / two.norm()), abs=1e-6)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_the_quickstart_shows_what_it_promises(tmp_path):
    out = tmp_path / "with a space"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tpv.cli", "quickstart", "--out", out],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "120"},
    )
    print(done.stdout, f"{time.perf_counter() - started:.0f} s")  # printed, not asserted: machines differ
    table = pq.read_table(out / "results.parquet")
    assert table.schema.equals(SCHEMA)
    cross = table.filter((pc.field("experiment") == "cross-initialisation") & (pc.field("metric") == "exact_match"))
    means = {
        (row["task"], row["method"]): row["value_mean"]
        for row in cross.group_by(["task", "method"]).aggregate([("value", "mean")]).to_pylist()
    }
    sources = [f"mini/{name}" for name in mini.SOURCES]
    assert sum(means[task, "tuned"] >= 0.9 for task in sources) >= 5
    assert all(means[task, "untuned"] <= 0.6 for task in sources)
    files = sorted((out / "vectors").iterdir())
    assert len(files) == 12
    for path in files:
        (task,) = tpv.TaskPromptVector.load(path).terms
        assert path.name.startswith(task.removeprefix("mini/"))
    assert (out / "report.html").stat().st_size > 20_000
