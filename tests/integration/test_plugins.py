"""One file outside of tpv adds a merge, an initializer, a method, a metric or an experiment: everywhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

import tpv
from tpv.registry import load_plugins, register
from tpv.reporting.records import read_rows

PLUGINS = Path(__file__).resolve().parents[1] / "support" / "plugins"
CONFIG = """
name = "own"
plugins = {plugins}
experiments = {experiments}
{more}
[model]
name = "mini"
device = "cpu"
[prompt]
tokens = 3
{prompt}
[seeds]
inits = 2
[[families]]
name = "f"
sources = ["mini/sst2", "mini/yelp"]
[sources.training]
steps = 3
batch_size = 4
select = "last"
[limits]
train = 30
validation = 10
test = 20
[run]
energy = false
cpus = 1
"""


@pytest.fixture
def plugin():
    """Load a plugin here; it is forgotten after the test."""
    before = {name: set(registry.names()) for name, registry in register.registries().items()}
    loaded = []

    def load(name):
        loaded.append(name)
        return load_plugins([name], near=PLUGINS)[0]

    yield load
    for name in loaded:
        sys.modules.pop(name, None)
    for name, registry in register.registries().items():
        registry.without(*set(registry.names()) - before[name])


def fresh(folder, *arguments, code=0):
    """Run the command line in a process of its own, in a folder with the plugin beside the config."""
    done = subprocess.run(
        [sys.executable, "-m", "tpv.cli", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture
def tpv_(run, monkeypatch):
    """The same in this process, which has imported torch already; `test_a_merge` runs all of it in others."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(folder, *arguments, code=0):
        monkeypatch.chdir(folder)
        ended, out, err = run(*arguments)
        assert ended == code, out + err
        assert "Traceback" not in err
        return out

    return call


def study(folder, name, experiments='["sources"]', more="", prompt=""):
    """A config that names one plugin, and the plugin beside it."""
    shutil.copy(PLUGINS / f"{name}.py", folder)
    text = CONFIG.format(plugins=f'["{name}"]', experiments=experiments, more=more, prompt=prompt)
    (folder / "own.toml").write_text(text)


def planned_and_run(command, folder, *options):
    """What `tpv plan` prints, and the rows of `tpv run` and the page of `tpv report`."""
    plan = command(folder, "plan", "own.toml", "--out", "out", "--no-estimate")
    command(folder, "run", "own.toml", "--out", "out", *options)
    command(folder, "report", "out")
    return plan, read_rows(folder / "out" / "results.parquet"), (folder / "out" / "report.html").read_text()


def test_a_merge(plugin, tmp_path, backbone):
    plugin("own_merge")
    init = tpv.SoftPrompt.sample(backbone, 3)
    torch.manual_seed(0)
    vectors = [init.tuned_to(init.tensor + torch.randn(3, 128), name) - init for name in ("a", "b", "c")]
    merged = tpv.merge(vectors, "median", shrink=0.5)
    assert torch.equal(merged.tensor, 0.5 * torch.stack([v.tensor for v in vectors]).median(dim=0).values)
    study(
        tmp_path,
        "own_merge",
        '["combination"]',
        more='combination.merges = ["median", {method = "ties", density = 0.5}]',
    )
    plan, rows, page = planned_and_run(fresh, tmp_path, "--workers", "2")
    assert "combination" in plan
    merges = {(row.merge, row.parameters) for row in rows if row.method == "merge"}
    assert merges == {("median", ""), ("ties", '{"density": 0.5}')}
    assert "ties (density 0.5), ordinary" in page
    assert "median, ordinary" in page
    for name, vector in zip("abc", vectors, strict=True):
        vector.save(tmp_path / f"{name}.safetensors")
    files = ["a.safetensors", "b.safetensors", "c.safetensors"]
    fresh(
        tmp_path,
        "--plugin",
        "own_merge",
        "vector",
        "merge",
        *files,
        "--method",
        "median",
        "--set",
        "shrink=0.5",
        "-o",
        "m.safetensors",
    )
    assert tpv.TaskPromptVector.load(tmp_path / "m.safetensors") == merged
    assert "shrink = 1.0" in fresh(tmp_path, "--plugin", "own_merge", "registry", "merge")
    # another source of the plugin makes its jobs anew, and only those
    path = tmp_path / "own_merge.py"
    path.write_text(path.read_text() + "\n# changed\n")
    again = fresh(tmp_path, "run", "own.toml", "--out", "out")
    assert " 8 of 14 jobs" in again  # its own four, and the four that are scored in the same banks


def test_an_initializer(plugin, tmp_path, backbone, tpv_):
    plugin("own_initializer")
    init = tpv.SoftPrompt.sample(backbone, 3, 7, "uniform", width=0.25)
    assert init.tensor.abs().max() <= 0.25
    assert init.init.kind == "uniform"
    assert init == tpv.SoftPrompt.sample(backbone, 3, 7, "uniform", width=0.25)
    task = tpv.load_task("mini/sst2")
    recipe = tpv.Recipe(steps=1, batch_size=2, select="last")
    (vector,) = tpv.fit_vectors(backbone, [task], recipe, num_tokens=3, init="uniform", callback=lambda _: None)
    assert vector.components[0].training.starts == "uniform"
    assert vector.components[0].training.parameters == {"width": 0.5}
    study(tmp_path, "own_initializer", prompt='init = "uniform"\ninit_parameters = {width = 0.25}')
    plan, rows, page = planned_and_run(tpv_, tmp_path)
    assert "source prompts" in plan
    assert rows
    assert "initializer uniform" in page
    (file,) = list((tmp_path / "out" / "jobs" / "train").glob("*/prompt.safetensors"))[:1]
    assert tpv.SoftPrompt.load(file).init.kind == "uniform"
    tpv_(
        tmp_path,
        "--plugin",
        "own_initializer",
        "tune",
        "--task",
        "mini/sst2",
        "--steps",
        "2",
        "--tokens",
        "3",
        "--init",
        "uniform:width=0.25",
        "--out",
        "tuned",
    )
    assert tpv.SoftPrompt.load(tmp_path / "tuned" / "init.safetensors").tensor.abs().max() <= 0.25


def test_a_method(plugin, tmp_path, backbone, tpv_):
    plugin("own_method")
    task, init = tpv.load_task("mini/sst2"), tpv.SoftPrompt.sample(backbone, 3)
    recipe = tpv.Recipe(steps=4, batch_size=4, warmup_steps=1, lr=0.3, eval_every=2)
    tuned = tpv.fit(
        backbone, task, [init, init], recipe, method="shared_offset", parameters={"gain": 2.0}, callback=lambda _: None
    )
    for prompt in tuned:
        offset = (prompt - init).tensor
        assert torch.allclose(offset, offset[:1].expand_as(offset), atol=1e-6)
        assert offset.abs().max() > 0.05
    assert tuned[0] == tuned[1]
    with pytest.raises(tpv.TpvError, match="unknown parameter 'gian', did you mean 'gain'"):
        tpv.fit(backbone, task, init, recipe, method="shared_offset", parameters={"gian": 2.0})
    study(
        tmp_path,
        "own_method",
        '["cross_initialization", "combination"]',
        more='vectors.modes = ["shared_offset", "portable"]\ncombination.scale_step = 0.5',
    )
    plan, rows, page = planned_and_run(tpv_, tmp_path)
    assert "moved, shared_offset" in plan
    seen = {(row.method, row.mode, row.home) for row in rows}
    assert {
        ("moved", "shared_offset", False),
        ("tuned", "shared_offset", True),
        ("plain_sum", "shared_offset", False),
    } <= seen
    assert "vectors, shared_offset" in page
    tpv_(
        tmp_path,
        "--plugin",
        "own_method",
        "tune",
        "--task",
        "mini/sst2",
        "--steps",
        "2",
        "--tokens",
        "3",
        "--method",
        "shared_offset",
        "--set",
        "gain=0.5",
        "--out",
        "tuned",
    )
    offset = tpv.TaskPromptVector.load(tmp_path / "tuned" / "vector.safetensors").tensor
    assert torch.allclose(offset, offset[:1].expand_as(offset), atol=1e-6)


def test_a_metric(plugin, tmp_path, backbone, tpv_):
    plugin("own_metric")
    task, init = tpv.load_task("mini/trec"), tpv.SoftPrompt.sample(backbone, 3)
    scores = tpv.evaluate(backbone, task, init)
    table = scores.predictions
    predicted = [word or "none" for word in table["predicted"].to_pylist()]
    expected = balanced_accuracy_score(table["gold"].to_pylist(), predicted) if set(predicted) else 0.0
    assert scores.metric("balanced_accuracy") == pytest.approx(expected)
    recipe = tpv.Recipe(steps=2, batch_size=4, select="balanced_accuracy", eval_every=1)
    assert tpv.fit(backbone, task.few_shot(20, 0), init, recipe, callback=lambda _: None)
    study(tmp_path, "own_metric")
    plan, rows, page = planned_and_run(tpv_, tmp_path)
    assert "source prompts" in plan
    assert {row.task for row in rows if row.metric == "balanced_accuracy"} == {"mini/sst2", "mini/yelp"}
    assert "balanced accuracy" in page
    init.save(tmp_path / "init.safetensors")
    printed = tpv_(tmp_path, "--plugin", "own_metric", "evaluate", "init.safetensors", "--task", "mini/trec")
    assert "balanced accuracy" in printed


def test_an_experiment(plugin, tmp_path, tpv_):
    plugin("own_experiment")
    study(tmp_path, "own_experiment", '["sources", "scaling"]', more="scaling.scales = [0.25, 1.0, 2.0]")
    plan, rows, page = planned_and_run(tpv_, tmp_path)
    assert "scaling" in plan
    mine = [row for row in rows if row.experiment == "scaling" and row.metric == "exact_match"]
    assert {(row.task, row.init_seed, row.scale) for row in mine} == {
        (task, seed, scale) for task in ("mini/sst2", "mini/yelp") for seed in (0, 1) for scale in (0.25, 1.0, 2.0)
    }
    assert "Vectors at several scales" in page
    assert (tmp_path / "out" / "tables" / "scaling.csv").is_file()
    assert "scaling" in tpv_(tmp_path, "--plugin", "own_experiment", "registry", "experiment")
    assert pq.read_table(tmp_path / "out" / "results.parquet").num_rows == len(rows)
    text = (tmp_path / "own.toml").read_text()
    (tmp_path / "own.toml").write_text(text.replace("scaling.scales", "scaling.scalse"))
    wrong = subprocess.run(
        [sys.executable, "-m", "tpv.cli", "plan", "own.toml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert "scaling.scalse: unknown key, did you mean 'scales'" in wrong.stderr


def test_a_plugin_that_is_missing_is_one_line(tmp_path):
    study(tmp_path, "own_merge")
    (tmp_path / "own_merge.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "tpv.cli", "plan", "own.toml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "plugin 'own_merge' was not found" in done.stderr


def test_a_map(plugin, tmp_path, backbone, random_t5):
    plugin("own_map")
    other = random_t5(seed=3)
    vector = tpv.SoftPrompt.normal(backbone, 3).tuned_to(torch.ones(3, 128), "t") - tpv.SoftPrompt.normal(backbone, 3)
    whole, half = (tpv.port(vector, backbone, other, method="least_squares", shrink=size) for size in (1.0, 0.5))
    torch.testing.assert_close(whole.tensor, 2 * half.tensor)
    near = tpv.port(vector, backbone, other, method="ridge", alpha=1e-9, scale="fit")
    torch.testing.assert_close(whole.tensor, near.tensor, atol=1e-3, rtol=1e-3)
    assert half.components[0].port.parameters == {"shrink": 0.5}
    shutil.copy(PLUGINS / "own_map.py", tmp_path)
    assert "least_squares" in fresh(tmp_path, "--plugin", "own_map", "registry", "port")
