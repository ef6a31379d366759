"""One file outside the package adds a job kind, an experiment, a merge and an initializer to a study."""

import itertools
import os
import subprocess
import sys

import pytest
from places import CONFIGS
from small_runs import go, rows_of

import tpv
from tpv.execution.directory import open_run
from tpv.execution.reporting import report_run
from tpv.studies.config import read_config

PLUGIN = '''
"""How far prompts drift from their initialization, row by row."""
from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

import tpv
from tpv.studies.cells import Cell, row
from tpv.studies.tables import Settings
from tpv.studies.vectors import source_prompt
from tpv.studies.jobs.base import Job, Output


@tpv.register.merge("median{n}")
def median(vectors, *, factor: float = 1.0):
    """The median of the vectors, value by value."""
    return factor * vectors.median(dim=0).values


@tpv.register.metric("halves{n}")
def halves(gold, said) -> float:
    """Half of the exact matches."""
    return sum(one == two for one, two in zip(gold, said)) / len(gold) / 2


@tpv.register.initializer("ramp{n}")
def ramp(backbone, num_tokens: int, seed: int, *, slope: float = 0.01):
    """Values that grow with the row."""
    rows = torch.arange(num_tokens, dtype=torch.float32) + seed + 1
    return slope * rows[:, None].expand(num_tokens, backbone.identity.hidden_size).clone()


@tpv.register.job("drift{n}")
@dataclass(frozen=True)
class Drift(Job):
    """The largest row of a vector."""

    kind: ClassVar[str] = "drift{n}"
    doing: ClassVar[str] = "measuring drift"
    title: ClassVar[str] = "drifts"
    vector: object
    power: int

    @classmethod
    def run(cls, lab, jobs, callback, checkpoint):
        return [Output(partial(_save, lab.vector(job.vector), job.power)) for job in jobs]

    def rows(self, cell, folder, key, labels):
        value = json.loads((folder / "drift.json").read_text())
        yield row(cell, key, metric="drift", value=value, n=1)


def _save(vector, power, folder):
    (folder / "drift.json").write_text(json.dumps(float(vector.tensor.norm(dim=1).max() ** power)))


class DriftSettings(Settings):
    """Which power of the norm."""

    power: int = 1


@tpv.register.experiment("drifting{n}", parameters=DriftSettings)
class Drifting:
    """How far each source prompt drifts."""

    title = "How far prompts drift"

    @staticmethod
    def cells(config) -> Iterator[Cell]:
        power = config.table(DriftSettings).power
        for task in config.source_tasks:
            for seed in config.seeds.starts:
                job = Drift(source_prompt(config, task, seed), power)
                yield Cell("drifting{n}", job, "norm", task, sources=(task,), init_seed=seed)
'''
CONFIG = """
extends = "{configs}/smoke.toml"
name = "drifting"
plugins = ["{module}"]
experiments = ["combination", "drifting{n}"]

[prompt]
init = "ramp{n}"
init_parameters = {{ slope = 0.02 }}

[combination]
merges = ["mean", {{ method = "median{n}", factor = 0.5 }}]
sums = [["mini/mnli", "mini/sst2"]]

[drifting{n}]
power = 2
"""
numbers = itertools.count()


@pytest.fixture
def written(tmp_path):
    """A config beside its plugin; what it registers is forgotten afterwards."""
    n = f"_{os.getpid()}_{next(numbers)}"
    module = f"plugin{n}"
    (tmp_path / f"{module}.py").write_text(PLUGIN.replace("{n}", n))
    config = tmp_path / "drifting.toml"
    config.write_text(CONFIG.format(configs=CONFIGS, module=module, n=n))
    yield config, tmp_path / f"{module}.py", n
    for registry in tpv.register.registries().values():
        registry.without(f"median{n}", f"halves{n}", f"ramp{n}", f"drift{n}", f"drifting{n}")
    sys.modules.pop(module, None)


def command(*arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "tpv.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_file_is_planned_run_by_several_workers_and_reported(written, tmp_path):
    path, _, n = written
    out = tmp_path / "run"
    plan = command("plan", path, "--out", out, "--no-estimate")
    assert f"drifting{n}" in plan
    assert "drifts" in plan
    ran = command("run", path, "--out", out, "--workers", 2)
    assert "jobs run now" in ran
    assert "are done" in command("run", path, "--out", out)
    assert "How far prompts drift" in command("report", out, cwd=path.parent)
    page = (out / "report.html").read_text()
    assert f"median{n} (factor 0.5)" in page
    assert f"ramp{n} (slope 0.02)" in page

    # the numbers, made again by hand
    read_config(path)  # which imports the plugin here, too
    rows, directory = rows_of(out), open_run(out)
    backbone = tpv.load_backbone("mini")
    vectors = {}
    for row in rows:
        if row.metric == "drift":
            (job,) = [job for job in jobs_of(directory) if directory.keys(job) == row.job]
            training = job.vector
            tuned = tpv.SoftPrompt.load(directory.folder_of(training) / "prompt.safetensors")
            init = tpv.SoftPrompt.sample(backbone, 4, row.init_seed, f"ramp{n}", slope=0.02)
            vectors[row.task, row.init_seed] = tuned - init, init
            drift = float((tuned - init).tensor.norm(dim=1).max()) ** 2
            assert row.value == pytest.approx(drift, rel=1e-5)
    assert len(vectors) == 3 * 2
    scored = {(row.job, row.task, row.metric): row.value for row in rows if row.split == "test"}
    halved = {key: value for key, value in scored.items() if key[2] == f"halves{n}"}
    assert halved
    assert all(value == scored[job, name, "exact_match"] / 2 for (job, name, _), value in halved.items())
    task = tpv.load_task("mini/sst2").limited({"train": 200, "validation": 40, "test": 60}, 0)
    merged = [row for row in rows if row.method == "merge" and row.task == "mini/sst2" and row.metric == "loss"]
    assert {(row.merge, row.parameters) for row in merged} == {("mean", ""), (f"median{n}", '{"factor": 0.5}')}
    for row in merged:
        pair = [vectors[name, row.init_seed][0] for name in row.sources]
        options = {"factor": 0.5} if row.parameters else {}
        prompt = vectors["mini/sst2", row.init_seed][1] + tpv.merge(pair, row.merge, **options)
        assert row.value == pytest.approx(tpv.evaluate(backbone, task, prompt).loss, rel=1e-4)


def jobs_of(directory):
    from tpv.studies.cells import cells
    from tpv.studies.jobs.base import in_order

    return in_order(cell.job for cell in cells(directory.config))


def test_a_changed_plugin_is_run_again_and_nothing_else(written, tmp_path):
    path, module, n = written
    text = path.read_text()
    path.write_text(text[: text.index("[prompt]")] + text[text.index("[combination]") :])
    config = read_config(path)
    go(config, tmp_path / "run")
    assert go(config, tmp_path / "run").ran == 0
    before = {job: open_run(tmp_path / "run").keys(job) for job in jobs_of(open_run(tmp_path / "run"))}
    module.write_text(module.read_text() + "\n# changed\n")
    outcome = go(config, tmp_path / "run")
    after = open_run(tmp_path / "run")
    changed = {job.kind for job, key in before.items() if after.keys(job) != key}
    assert changed == {f"drift{n}", "score"}  # its job, and what is scored of its merge
    kept = [job for job, key in before.items() if job.kind == "score" and after.keys(job) == key]
    assert kept, "scores of the merge that comes with tpv stay"
    assert outcome.ran <= sum(job.kind in changed for job in before)  # a bank runs whole
    tables = {table.name: table for table in report_run(tmp_path / "run", tmp_path / "report")}
    assert len(tables[f"drifting{n}"].rows) == len(config.source_tasks)
    assert "metrics_combination" in tables
    assert any(f"median{n} (factor 0.5)" in str(cell) for row in tables["plain_sums"].rows for cell in row)


def test_results_are_written_anew_when_a_metric_changed(written, tmp_path):
    path, module, n = written
    text = path.read_text()
    path.write_text(text[: text.index("[prompt]")].replace(f', "drifting{n}"', ""))
    config = read_config(path)
    go(config, tmp_path / "run")
    module.write_text(module.read_text().replace("len(gold) / 2", "len(gold) / 4"))
    for registry in tpv.register.registries().values():
        registry.without(f"median{n}", f"halves{n}", f"ramp{n}", f"drift{n}", f"drifting{n}")
    sys.modules.pop(module.stem)
    assert go(read_config(path), tmp_path / "run").ran == 0
    rows = {(row.job, row.task, row.split, row.metric): row.value for row in rows_of(tmp_path / "run")}
    changed = [key for key in rows if key[3] == f"halves{n}"]
    assert changed
    assert all(rows[key] == rows[*key[:3], "exact_match"] / 4 for key in changed)


def test_a_report_runs_no_code_of_the_run_directory(written, tmp_path):
    path, module, n = written
    text = path.read_text()
    path.write_text(text[: text.index("[prompt]")].replace(f', "drifting{n}"', ""))
    go(read_config(path), tmp_path / "run", limit=1)
    for registry in tpv.register.registries().values():
        registry.without(f"median{n}", f"halves{n}", f"ramp{n}", f"drift{n}", f"drifting{n}")
    sys.modules.pop(module.stem)
    (tmp_path / "run" / module.name).write_text("raise SystemExit('code of a stranger')")
    with pytest.raises(tpv.TpvError, match=f"plugin '{module.stem}' was not found"):
        open_run(tmp_path / "run")
