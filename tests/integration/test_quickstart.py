"""The demonstration itself, hurried in the fast tests, and once as a user runs it."""

import io
import os
import subprocess
import sys
import time

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import tpv
from tpv import mini
from tpv.execution import quickstart
from tpv.reporting.records import SCHEMA, read_rows

HURRIED = {  # next to no training: everything runs, nothing is learnt
    "sources": {"training": {"steps": 2, "batch_size": 2, "select": "last"}},
    "transfer": {
        "methods": ["random", "spot", "sum"],
        "shots": [0, 10],
        "batch_size": [[10, 2]],
        "attempt_schedule": [[10, 2, 1]],
        "training": {"steps": 2, "select": "last"},
    },
    "limits": {"train": 40, "validation": 40, "test": 40},
}


def test_every_row_of_the_quickstart_can_be_made_again(tmp_path, backbone):
    values = quickstart.settings() | HURRIED
    values["combination"] = values["combination"] | {"scale_step": 1.0}
    rows = quickstart.run(tmp_path, seed=5, console=Console(file=io.StringIO()), values=values)
    assert read_rows(tmp_path / "results.parquet") == rows
    assert {row.init_seed for row in rows} == {5, 6}
    assert {row.experiment for row in rows} == set(values["experiments"])
    # a moved vector, scored again from the files the run left
    vector = tpv.TaskPromptVector.load(tmp_path / "vectors" / "trec-init5.safetensors")
    init = tpv.SoftPrompt.load(tmp_path / "inits" / "init6.safetensors")
    assert init == tpv.SoftPrompt.sample(backbone, 20, seed=6)
    task = tpv.load_task("mini/trec", seed=0).limited(HURRIED["limits"], 0)
    (row,) = [
        row
        for row in rows
        if (row.method, row.task, row.init_seed, row.metric) == ("moved", "mini/trec", 6, "macro_f1")
    ]
    assert row.value == tpv.evaluate(backbone, task, init + vector).macro_f1
    assert row.n == 40
    # a cosine, against float64
    other = tpv.TaskPromptVector.load(tmp_path / "vectors" / "sst2-init6.safetensors")
    (row,) = [
        row
        for row in rows
        if (row.method, row.metric, row.sources) == ("vectors", "cosine", ("mini/trec", "mini/sst2"))
        and (row.init_seed, row.vector_seed) == (5, 6)
    ]
    one, two = vector.tensor.double().flatten(), other.tensor.double().flatten()
    assert row.value == pytest.approx(float(one @ two / one.norm() / two.norm()), abs=1e-6)
    assert (tmp_path / "report.html").is_file()
    # again: all is done, and the page is the same but for its foot
    assert quickstart.run(tmp_path, seed=5, console=Console(file=io.StringIO()), values=values) == rows
    with pytest.raises(tpv.TpvError, match="another config"):
        quickstart.run(tmp_path, seed=6, console=Console(file=io.StringIO()), values=values)


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
    scored = table.filter((pc.field("experiment") == "sources") & (pc.field("metric") == "exact_match"))
    means = {
        (row["task"], row["method"]): row["value_mean"]
        for row in scored.group_by(["task", "method"]).aggregate([("value", "mean")]).to_pylist()
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
