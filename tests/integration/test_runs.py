"""Runs: what is done stays done, what is killed goes on, what is damaged is made again, what differs is refused."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import combinations
from types import SimpleNamespace

import kills
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from places import CONFIGS
from small_runs import TINY, go, rows_of, tiny, write_config
from toys import write_rating

import tpv
from tpv.errors import cut_summary
from tpv.evaluation import score
from tpv.execution import execute as executor
from tpv.execution.artifacts import Keys, digest
from tpv.execution.directory import locked, open_run
from tpv.execution.execute import run
from tpv.execution.manifest import read_manifest, write_manifest
from tpv.execution.plan import work_units
from tpv.execution.progress import Reporter
from tpv.execution.reporting import report_run, study_of
from tpv.studies import lab as steps
from tpv.studies.cells import cells
from tpv.studies.config import read_config
from tpv.studies.jobs.base import in_order
from tpv.studies.jobs.search import Search
from tpv.studies.jobs.train import Train
from tpv.studies.vectors import source_prompt, trained_vector
from tpv.tasks import concatenate

SENTIMENT = ["negative", "positive"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    outcome = go(tiny(), folder)
    assert not outcome.failed
    return folder


def test_every_experiment_has_rows_and_each_names_its_job(finished):
    directory, rows = open_run(finished), rows_of(finished)
    assert {row.experiment for row in rows} == set(tiny().experiments)
    methods = {row.method for row in rows if row.experiment == "transfer"}
    assert methods == {"random", "spot", "spot_multi", "attempt", "sum"}
    assert {row.sources for row in rows if row.method == "spot"} == {("mini/mnli",), ("mini/qnli",)}
    for row in rows:
        assert any(
            (directory.store.folder / kind / row.job / "record.json").exists()
            for kind in ("score", "search", "compare", "measure")
        ), row
    timed = pq.read_table(finished / "timings.parquet").to_pylist()
    added = [row for row in timed if row["experiment"] == "cost"]
    assert {row["method"] for row in added} == {"vectors", "spot_multi", "attempt"}
    assert {row["method"] for row in timed if row["experiment"] == "transfer"} == methods  # what each row cost
    assert all(row["value"] > 0 for row in timed if row["metric"] == "seconds")


def test_numbers_can_be_made_again_from_the_prompts_a_run_left(finished, backbone):
    config, rows = tiny(), rows_of(finished)
    directory = open_run(finished)
    task = tpv.load_task("mini/mnli").limited({"train": 20, "validation": 10, "test": 12}, 0)

    def prompt(cell):
        return tpv.SoftPrompt.load(directory.folder_of(cell) / "prompt.safetensors")

    one, two = (source_prompt(config, "mini/mnli", seed) for seed in (0, 1))
    start = tpv.SoftPrompt.sample(backbone, 3, seed=0)
    moved = start + (prompt(two) - tpv.SoftPrompt.sample(backbone, 3, seed=1))
    (row,) = [
        row
        for row in rows
        if (row.experiment, row.method, row.task, row.init_seed, row.metric)
        == ("cross_initialization", "moved", "mini/mnli", 0, "loss")
    ]
    assert row.vector_seed == 1
    assert row.value == pytest.approx(tpv.evaluate(backbone, task, moved).loss, abs=1e-6)
    cosines = [row for row in rows if (row.experiment, row.method, row.metric) == ("similarity", "vectors", "cosine")]
    assert len(cosines) == 4 * 3 / 2
    (row,) = [row for row in cosines if row.sources == ("mini/mnli", "mini/mnli")]
    a, b = (prompt(job) - tpv.SoftPrompt.sample(backbone, 3, seed=i) for i, job in enumerate((one, two)))
    assert row.value == pytest.approx(a.cosine(b), abs=1e-6)


def test_a_search_takes_the_scale_that_validation_likes_best(finished, backbone):
    rows, config = rows_of(finished), tiny()
    for seed in (0, 1):
        mine = [row for row in rows if row.experiment == "combination" and row.init_seed == seed]
        grid = {}
        for row in mine:
            if row.split == "validation":
                grid.setdefault(row.scale, []).append(row.value)
        assert sorted(grid) == [0.0, 0.5, 1.0]
        assert all(len(values) == 2 for values in grid.values())
        best = max(sorted(grid), key=lambda scale: round(sum(grid[scale]), 9))
        assert {row.scale for row in mine if row.split == "test"} == {best}
    directory = open_run(finished)
    cell = next(cell for cell in cells(config) if isinstance(cell.job, Search))
    vectors = [
        tpv.SoftPrompt.load(directory.folder_of(job) / "prompt.safetensors")
        - tpv.SoftPrompt.sample(backbone, 3, seed=0)
        for job in cell.job.vectors
    ]
    task = tpv.load_task("mini/qnli").limited({"train": 20, "validation": 10, "test": 12}, 0)
    scores = tpv.evaluate(backbone, task, tpv.SoftPrompt.sample(backbone, 3, seed=0) + 0.5 * sum(vectors), "validation")
    (row,) = [
        row
        for row in rows
        if (row.experiment, row.split, row.task, row.scale, row.init_seed)
        == ("combination", "validation", "mini/qnli", 0.5, 0)
    ]
    assert row.value == scores.exact_match


def test_a_finished_run_does_nothing_and_loads_no_model(finished, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr("tpv.models.load_backbone", None)
    outcome = go(tiny(), finished)
    assert (outcome.ran, outcome.left, outcome.failed) == (0, 0, {})
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after


def test_a_run_in_pieces_is_the_run_in_one(finished, tmp_path):
    assert go(tiny(), tmp_path, experiment="similarity").total < 12
    for _ in range(100):
        outcome = go(tiny(), tmp_path, limit=7)
        if not outcome.left:
            break
    else:
        pytest.fail("does not get to an end")
    assert kills.content(tmp_path) == kills.content(finished)


def test_damaged_artifacts_are_made_again(finished, tmp_path):
    folder = tmp_path / "copied elsewhere"
    shutil.copytree(finished, folder)
    directory = open_run(folder)
    prompts = sorted((directory.store.folder / "train").iterdir())
    flipped = prompts[0] / "prompt.safetensors"
    data = bytearray(flipped.read_bytes())
    data[-5] ^= 1
    flipped.write_bytes(data)
    tables = sorted((directory.store.folder / "score").iterdir())
    (tables[0] / "predictions.parquet").write_bytes(b"PAR1")
    shutil.rmtree(tables[1])
    shutil.rmtree(tables[2])
    shutil.copytree(tables[3], tables[2])  # another job's
    (tables[4] / "record.json").write_text("{")
    record = json.loads((tables[5] / "record.json").read_text())
    (tables[5] / "record.json").write_text(json.dumps(record | {"files": {}}))
    search = min((directory.store.folder / "search").iterdir())
    altered = json.loads((search / "record.json").read_text())
    (search / "record.json").write_text(json.dumps(altered | {"scale": 0.123}))
    (folder / "results.parquet").write_bytes(b"x")
    outcome = go(tiny(), folder)
    assert outcome.ran >= 5
    assert kills.content(folder) == kills.content(finished)


def test_another_config_version_or_model_is_refused_with_what_differs(finished, monkeypatch, tmp_path):
    with pytest.raises(tpv.TpvError, match=r"negation.scales.1 was 1.0, is 2.0"):
        go(tiny(negation={"scales": [0, 2], "methods": ["sum_own"]}), finished)
    go(tiny(run={"energy": False, "country": "SVK"}), finished)  # cannot change a number
    monkeypatch.setattr(Train, "version", 99)
    with pytest.raises(tpv.TpvError, match="another version of tpv"):
        go(tiny(), finished)
    monkeypatch.undo()
    manifest = json.loads((finished / "run.json").read_text())

    def put(changed):
        (tmp_path / "run.json").write_text(json.dumps(changed | {"digest": digest(changed)}))

    put(manifest | {"model": manifest["model"] | {"weights": "0" * 64}})
    with pytest.raises(tpv.TpvError, match="not the one that run directory"):
        go(tiny(), tmp_path)
    tasks = manifest["tasks"]
    tasks["mini/mnli"]["fingerprint"] = "0" * 64
    put(manifest)
    with pytest.raises(tpv.TpvError, match="rows of task 'mini/mnli'"):
        go(tiny(), tmp_path)
    with pytest.raises(tpv.TpvError, match="no run directory"):
        open_run(tmp_path / "none")
    put({})
    with pytest.raises(tpv.DamagedFileError, match="damaged, or of another version; got config: Field required"):
        open_run(tmp_path)
    put(manifest | {"config": {"name": 3}})
    with pytest.raises(tpv.DamagedFileError, match="is damaged; got name"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(manifest | {"tpv": "0.0.1"}))
    with pytest.raises(tpv.DamagedFileError, match="was altered"):
        open_run(tmp_path)
    put(manifest | {"tpv": "0.0.1"})
    with pytest.raises(tpv.TpvError, match="made by another version"):
        open_run(tmp_path)


def test_a_failing_job_does_not_stop_the_others(tmp_path, monkeypatch, finished):
    real = tpv.fit

    def fit(backbone, tasks, inits, *rest, **options):
        if any(task.name == "mini/qnli" for task in (tasks if isinstance(tasks, list) else [tasks])):
            raise RuntimeError("out of\nmemory")
        return real(backbone, tasks, inits, *rest, **options)

    monkeypatch.setattr("tpv.training.fit.fit", fit)
    outcome = go(tiny(), tmp_path)
    assert set(outcome.failed.values()) == {"RuntimeError: out of memory"}
    trained = [job for job in outcome.failed if isinstance(job, Train)]
    assert {job.data.tasks for job in trained} == {("mini/qnli",)}
    assert outcome.blocked > 0
    assert {"mini/mnli"} == {
        row.task for row in rows_of(tmp_path) if row.experiment == "sources" and row.method == "tuned"
    }
    assert {row.method for row in rows_of(tmp_path) if row.experiment == "transfer"} >= {"random", "spot", "spot_multi"}
    monkeypatch.undo()
    assert not go(tiny(), tmp_path).failed
    assert kills.content(tmp_path) == kills.content(finished)


def test_what_was_made_from_something_else_is_made_again(finished, tmp_path):
    """An artifact that was replaced by a whole other one, hashes and all: what came of it is made anew."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    directory, config = open_run(folder), tiny()
    job = source_prompt(config, "mini/mnli", 0)
    with directory.store.writing("train", directory.keys(job), {"inputs": {}}) as part:
        start = tpv.SoftPrompt.load(finished / "jobs" / "train" / directory.keys(job) / "prompt.safetensors")
        start.tuned_to(start.tensor * 1.001, "mini/mnli").save(part / "prompt.safetensors")
    fresh = open_run(folder)
    stale = [cell for cell in cells(config) if not fresh.done(cell.job)]
    assert {cell.experiment for cell in stale} >= {"sources", "similarity", "combination", "negation"}
    assert all(fresh.done(cell.job) for cell in cells(config) if cell.method in ("random", "untuned"))


def test_a_place_that_cannot_be_written_stops_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tpv.execution.artifacts.os.fsync", full)
    with pytest.raises(tpv.TpvError, match="No space left on device"):
        go(tiny(), tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob(".part*"))
    assert not go(tiny(), tmp_path, limit=1).failed


def test_a_second_run_is_refused_and_the_first_is_named(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from tpv.execution.directory import locked\n"
            f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(tpv.TpvError, match=f"is in use; got process {holder.pid} on"):
            go(tiny(), tmp_path)
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path):  # killed, it holds nothing
        pass


def test_banks_depend_on_the_config_alone():
    config = tiny(run={"energy": False, "bank": 3})
    jobs = in_order(cell.job for cell in cells(config))
    every = work_units(config, jobs)
    assert sorted(map(id, (job for unit in every for job in unit.jobs))) == sorted(map(id, jobs))
    assert all(len({type(job) for job in unit.jobs}) == 1 for unit in every)
    assert max(len(unit.jobs) for unit in every if unit.kind == "train") == 3
    few = [unit for unit in every if unit.kind == "train" and unit.jobs[0].data.shots]
    assert all(len({job.recipe for job in unit.jobs}) == 1 for unit in few)
    assert any(len({type(job.init) for job in unit.jobs}) > 1 for unit in few)  # several methods in one bank


def test_a_run_learns_what_fit_learns(tmp_path, backbone):
    """One source prompt of a run, with its own recipe, by hand."""
    config = tiny(experiments=["sources"], run={"energy": False, "bank": 1})
    go(config, tmp_path)
    job = source_prompt(config, "mini/qnli", 1)
    stored = tpv.SoftPrompt.load(open_run(tmp_path).folder_of(job) / "prompt.safetensors")
    task = tpv.load_task("mini/qnli").limited({"train": 20, "validation": 10, "test": 12}, 0)
    start = tpv.SoftPrompt.sample(backbone, 3, seed=1)
    by_hand = tpv.fit(backbone, task, start, tpv.Recipe(steps=2, batch_size=2, select="last"), callback=lambda _: None)
    assert stored.digest == by_hand.digest


def test_a_checkpoint_that_does_not_read_is_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setattr("tpv.training.checkpoint.CHECKPOINT_SECONDS", 0.0)
    config = tiny(experiments=["sources"])
    go(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    class Stop(Reporter):
        def step(self, progress):
            raise Killed

    with pytest.raises(Killed):
        run(config, tmp_path / "out", reporter=Stop)
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    for damage in (lambda: checkpoint.write_bytes(b"x" * 100), lambda: (checkpoint.unlink(), checkpoint.mkdir())):
        damage()
        with pytest.raises(Killed):
            run(config, tmp_path / "out", reporter=Stop)
        assert checkpoint.is_file()
    checkpoint.write_bytes(b"")
    assert not go(config, tmp_path / "out").failed
    assert kills.content(tmp_path / "out") == kills.content(tmp_path / "whole")


def test_every_experiment_runs_on_a_causal_model(random_causal, tmp_path):
    made = random_causal("llama")
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    config = tiny(model={"name": str(tmp_path / "model"), "device": "cpu"})
    outcome = go(config, tmp_path / "out")
    assert not outcome.failed
    assert {row.experiment for row in rows_of(tmp_path / "out")} == set(config.experiments)
    directory = open_run(tmp_path / "out")
    job = source_prompt(config, "mini/qnli", 1)
    stored = tpv.SoftPrompt.load(directory.folder_of(job) / "prompt.safetensors")
    task = tpv.load_task("mini/qnli").limited(TINY["limits"], 0)
    init = tpv.SoftPrompt.sample(made, 3, 1)
    tuned = tpv.fit(made, task, init, job.recipe)
    np.testing.assert_allclose(stored.tensor, tuned.tensor, atol=1e-4)
    chat = tiny(model={"name": str(tmp_path / "model"), "device": "cpu", "chat": True}, experiments=["sources"])
    assert not go(chat, tmp_path / "chat").failed
    losses = [
        [row.value for row in rows_of(tmp_path / name) if row.experiment == "sources" and row.metric == "loss"]
        for name in ("out", "chat")
    ]
    assert all(one != other for one, other in zip(*losses, strict=True))
    with pytest.raises(tpv.TpvError, match="made with another config"):
        go(chat, tmp_path / "out")


def test_vectors_of_other_modes_are_further_rows_of_every_experiment(tmp_path, backbone, finished):
    modes = ("portable", "composable", "fixed")
    config = tiny(vectors={"modes": modes, "training": {"steps": 3}})
    assert not go(config, tmp_path / "run").failed
    rows, directory = rows_of(tmp_path / "run"), open_run(tmp_path / "run")
    values = {replace(row, job="", value=0.0): row.value for row in rows}
    for row in rows_of(finished):  # what was there stays
        assert values[replace(row, job="", value=0.0)] == pytest.approx(row.value, rel=1e-4, abs=1e-5)
    seen = {
        name: {(row.method, row.mode, row.home) for row in rows if row.experiment == name}
        for name in config.experiments
    }
    others = {(mode, False) for mode in modes}
    assert seen["cross_initialization"] == {
        ("tuned", "ordinary", False),
        ("moved", "ordinary", False),
        ("tuned", "fixed", True),
    } | {("moved", *other) for other in others}
    assert seen["combination"] == {("sum", "ordinary", False)} | {
        ("plain_sum", *other) for other in others | {("ordinary", True), ("ordinary", False), ("fixed", True)}
    }
    assert seen["similarity"] >= {("vectors", mode, False) for mode in modes}
    assert seen["transfer"] >= {("sum", mode, False) for mode in modes}
    assert seen["negation"] >= {("sum_own", mode, False) for mode in modes}

    tasks = [
        tpv.load_task(name).limited({"train": 20, "validation": 10, "test": 12}, 0) for name in config.source_tasks
    ]
    recipe = tpv.Recipe(steps=3, batch_size=2, select="last", lr="auto")
    silent = {"num_tokens": 3, "callback": lambda _: None}
    start, zero = tpv.SoftPrompt.sample(backbone, 3, 1), tpv.SoftPrompt.from_tensor(backbone, torch.zeros(3, 128))
    for mode, options in (
        ("portable", {}),
        ("composable", {"composable": True}),
        ("fixed", {"portable": False, "init": "zero"}),
    ):
        made = tpv.fit_vectors(backbone, tasks, recipe, seed=0, **options, **silent)
        member = trained_vector(config, mode, "mini/qnli", 0)
        stored = tpv.TaskPromptVector.load(directory.folder_of(member.of) / "vector-1.safetensors")
        torch.testing.assert_close(stored.tensor, made[1].tensor, atol=1e-5, rtol=1e-5)
        for method, home, prompt in (
            ("moved", False, start + made[1]),
            ("plain_sum", False, start + sum(made)),
            *([("plain_sum", True, zero + sum(made))] if mode == "fixed" else []),
        ):
            (row,) = [
                row
                for row in rows
                if (row.method, row.mode, row.home, row.task, row.metric) == (method, mode, home, "mini/qnli", "loss")
                and row.vector_seed == 0
            ]
            assert row.value == pytest.approx(tpv.evaluate(backbone, tasks[1], prompt).loss, rel=1e-4)
    tables = {table.name: table for table in report_run(tmp_path / "run", tmp_path / "report")}
    assert "plain_sums" in tables
    largest = max(len(row.sources) for row in rows)
    places = list(dict.fromkeys((row.mode, row.home) for row in rows if row.method == "plain_sum"))
    for (mode, home), line in zip(places, tables["plain_sums_largest"].rows[1:], strict=True):
        for task, cell in zip(config.source_tasks, line[1:], strict=True):
            own = [
                row.value
                for row in rows
                if (row.method, row.metric, row.task) == ("plain_sum", "exact_match", task)
                and (row.mode, row.home, len(row.sources)) == (mode, home, largest)
            ]
            assert cell.mean == pytest.approx(100 * sum(own) / len(own))
    assert (tmp_path / "report" / "figures" / "interference.svg").exists()


def test_a_run_from_before_a_key_of_the_vectors_goes_on(tmp_path):
    config = tiny(vectors={"modes": ["portable"], "training": {"steps": 3}}, experiments=["sources"])
    assert not go(config, tmp_path / "run").failed
    manifest = read_manifest(tmp_path / "run")
    del manifest.config["vectors"]["per_mode"]
    write_manifest(tmp_path / "run", manifest)
    assert go(config, tmp_path / "run").ran == 0
    changed = tiny(vectors={"modes": ["portable"], "per_mode": {"portable": {"steps": 4}}}, experiments=["sources"])
    with pytest.raises(tpv.TpvError, match=r"vectors\.per_mode"):
        go(changed, tmp_path / "run")


def test_norms_are_those_of_starts_and_vectors(finished):
    directory, config = open_run(finished), tiny()
    for row in rows_of(finished):
        if row.metric == "norm_ratio":
            job = source_prompt(config, row.task, row.init_seed)
            tuned = tpv.SoftPrompt.load(directory.folder_of(job) / "prompt.safetensors").tensor.double()
            start = tpv.SoftPrompt.sample(tpv.load_backbone("mini"), 3, row.init_seed).tensor.double()
            assert row.value == pytest.approx(float((tuned - start).norm() / start.norm()), rel=1e-6)
    ratios = [row for row in rows_of(finished) if row.metric == "norm_ratio"]
    assert len(ratios) == len(config.source_tasks) * 2


def test_what_the_model_or_the_data_cannot_do_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(tpv.TpvError, match="number of prompt tokens"):
        go(tiny(prompt={"tokens": 3000}), tmp_path / "a")
    with pytest.raises(tpv.TpvError, match=r"'mini/snli' has too few training examples; expected at most 3; got 4"):
        go(tiny(limits={"train": 3}), tmp_path / "b")
    with pytest.raises(tpv.TpvError, match="does not exist"):
        go(tiny(model={"name": "/no/such/model"}), tmp_path / "c")
    assert not list(tmp_path.iterdir())


# --- data -----------------------------------------------------------------------------------------
def test_multi_task_data_is_the_concatenation():
    tasks = [tpv.load_task(f"mini/{name}") for name in ("mnli", "qnli", "trec")]
    joined = concatenate(tasks)
    for split in ("train", "validation", "test"):
        rows = [(row.source, row.target) for task in tasks for row in task.examples(split)]
        assert [(row.source, row.target) for row in joined.examples(split)] == rows
        assert len({row.id for row in joined.examples(split)}) == len(rows)
    assert joined.labels[:4] == ("entailment", "neutral", "contradiction", "not_entailment")
    assert all(joined.labels[row.label] == row.target for row in joined.examples("test"))
    with pytest.raises(tpv.TpvError, match="at least one"):
        concatenate([])


@pytest.mark.parametrize("size", [1, 7, 100, 399])
def test_limits_keep_the_class_distribution(size):
    task = tpv.load_task("mini/trec")
    cut = task.limited({"test": size}, 3)
    assert len(cut.examples("test")) == size
    whole, part = (np.bincount([row.label for row in t.examples("test")], minlength=6) for t in (task, cut))
    assert (np.abs(part - whole * size / 400) < 1).all()
    assert cut.examples("train") == task.examples("train")
    places = [task.examples("test").index(row) for row in cut.examples("test")]
    assert places == sorted(places)
    assert task.limited({"test": 4000}, 3).splits == task.splits


def test_a_few_shot_sample_is_a_seed_of_its_own():
    config = tiny(transfer=TINY["transfer"] | {"vary_sample": True})
    lab = steps.Lab(config)
    samples = {
        (cell.method, cell.init_seed): lab.data(cell.job.of.data).examples("train")
        for cell in cells(config)
        if cell.experiment == "transfer" and cell.shots == 4 and isinstance(cell.job.of, Train)
    }
    assert len({rows for (_, seed), rows in samples.items() if seed == 0}) == 1  # one for all methods
    assert samples["random", 0] != samples["random", 1]


def test_the_sst5_of_the_authors_is_sst2():
    families = [{"name": "s", "sources": ["mini/sst2"], "targets": ["mini/sst5"]}]
    compat = steps.Lab(tiny(families=families, quirks={"sst5_is_sst2": True}))
    plain = steps.Lab(tiny(families=families))
    assert compat.task("mini/sst5").labels == ("negative", "positive")
    assert len(plain.task("mini/sst5").labels) == 5


def test_doubled_prompts_are_compared_on_live_and_on_all_rows(tmp_path):
    config = tiny(experiments=["similarity"], quirks={"doubled_prompt": True}, prompt={"tokens": 4})
    go(config, tmp_path)
    rows = {(row.method, row.sources, row.init_seed, row.vector_seed): row for row in rows_of(tmp_path)}
    assert {method for method, *_ in rows} == {"prompts", "vectors", "prompts_all_rows", "vectors_all_rows"}
    same = (("mini/mnli", "mini/qnli"), 0, 0)
    assert rows["prompts_all_rows", *same].n == 2 * rows["prompts", *same].n
    directory = open_run(tmp_path)
    a, b = (
        tpv.SoftPrompt.load(directory.folder_of(source_prompt(config, task, 0)) / "prompt.safetensors").tensor
        for task in ("mini/mnli", "mini/qnli")
    )
    for kind, part in (("prompts", slice(0, 2)), ("prompts_all_rows", slice(0, 4))):
        one, two = a[part].double().flatten(), b[part].double().flatten()
        assert rows[kind, *same].value == pytest.approx(float(one @ two / one.norm() / two.norm()), abs=1e-6)
    # the artefact: dead rows are the same start in both, so all rows look more alike than the live ones
    assert rows["prompts_all_rows", *same].value > rows["prompts", *same].value


# --- killing --------------------------------------------------------------------------------------
def test_killed_it_goes_on_and_ends_the_same(tmp_path):
    assert kills.main(write_config(tmp_path / "killed.toml"), times=2, seed=1, folder=tmp_path) == 0


@pytest.mark.slow
def test_killed_twenty_times_it_ends_the_same(tmp_path):
    assert kills.main(CONFIGS / "smoke.toml", times=20, seed=0, folder=tmp_path) == 0


def test_interrupted_it_says_how_to_go_on(tmp_path):
    hours = "[transfer.training]\nsteps = 1000000\n"  # the signal comes in the middle, however fast the machine
    config = write_config(tmp_path / "c.toml", '["sources", "transfer"]', hours)
    command = kills.command(config, tmp_path / "out")
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    )
    try:
        deadline = time.monotonic() + 120
        while not kills.artifacts(tmp_path / "out") and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"interrupted; `tpv run {config} --out {tmp_path / 'out'}` resumes" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_the_twelve_tasks_of_the_paper_make_fifteen_pairs():
    config = replace_starts(read_config(CONFIGS / "paper.toml"), 1)
    pairs = [cell.sources for cell in cells(config) if cell.experiment == "combination"]
    assert pairs == list(combinations(config.source_tasks, 2))


def replace_starts(config, count):
    return config.model_copy(update={"seeds": config.seeds.model_copy(update={"inits": count})})


@pytest.mark.parametrize("name", ["paper", "paper_compat", "mini", "smoke"])
def test_a_config_read_back_from_its_manifest_has_the_same_keys(name):
    config = read_config(CONFIGS / f"{name}.toml")
    back = type(config).model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    data = dict.fromkeys((*config.source_tasks, *config.targets), "")
    one, two = ([Keys({}, data)(cell.job) for cell in cells(each)] for each in (config, back))
    assert one == two


def test_results_written_again_are_the_same(finished):
    before = (finished / "results.parquet").read_bytes()
    executor.write_results(open_run(finished), finished)
    assert (finished / "results.parquet").read_bytes() == before


def test_a_recipe_is_part_of_the_key_and_the_bank_is_not():
    config = tiny()
    job = source_prompt(config, "mini/mnli", 0)
    data = {"mini/mnli": "a"}
    key = Keys({"model": 1}, data)(job)
    assert Keys({"model": 1}, data)(replace(job, recipe=replace(job.recipe, lr=0.1))) != key
    assert Keys({"model": 2}, data)(job) != key
    assert Keys({"model": 1}, {"mini/mnli": "b"})(job) != key
    assert Keys({"model": 1}, data)(replace(job)) == key


# --- trackers and energy --------------------------------------------------------------------------
def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    config = tiny(run={"trackers": ["tensorboard"], "energy": False}, experiments=["sources"])
    with pytest.raises(tpv.TpvError, match="tracker tensorboard; expected an installed package"):
        go(config, tmp_path)


def test_trackers_are_told_how_far_a_run_is(tmp_path, monkeypatch):
    logged = []

    class Accelerator:
        def __init__(self, **options):
            assert options["log_with"] == ["tensorboard"]

        def init_trackers(self, name, config):
            logged.append((name, config["model"]))

        def log(self, values, step):
            logged.append((step, values["jobs"]))

        def end_training(self):
            logged.append("end")

    monkeypatch.setattr("accelerate.Accelerator", Accelerator)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    outcome = go(tiny(run={"trackers": ["tensorboard"], "energy": False}, experiments=["sources"]), tmp_path)
    assert logged[0] == ("tiny", "mini")
    assert logged[-2:] == [(outcome.total, float(outcome.total)), "end"]


def test_energy_is_added_up_over_the_pieces_of_a_run(tmp_path, monkeypatch):
    class Meter:
        def __init__(self, **options):
            assert options["country_iso_code"] == "SVK"

        def start(self):
            pass

        def stop(self):
            self.final_emissions_data = SimpleNamespace(duration=2.0, energy_consumed=0.5)
            return 0.25

    monkeypatch.setitem(sys.modules, "codecarbon", SimpleNamespace(OfflineEmissionsTracker=Meter))
    monkeypatch.setattr("tpv.execution.tracking.find_spec", lambda name: object())
    config = tiny(run={"country": "SVK"}, experiments=["sources"])
    go(config, tmp_path, limit=1)
    go(config, tmp_path)
    go(config, tmp_path)  # nothing to do, nothing to measure
    row = {"seconds": 2.0, "kwh": 0.5, "country": "SVK", "kg_co2eq": 0.25}
    assert json.loads((tmp_path / "energy.json").read_text()) == [row, row]
    facts = dict(study_of(open_run(tmp_path)).facts)
    assert facts["texts truncated"] == "none"
    assert facts["energy (codecarbon)"].startswith("1.0000 kWh")


def test_a_task_of_numbers_runs_through_the_whole_protocol(tmp_path):
    """Beside a task of words: correlations only where there are numbers, and in transfer it is reported by them."""
    source, target = write_rating(tmp_path), write_rating(tmp_path, "other")
    config = tiny(
        families=[{"name": "f", "sources": ["mini/mnli", str(source)], "targets": [str(target)]}],
        experiments=["sources", "combination", "transfer"],
        limits={"train": 20, "validation": 3, "test": 12},
    )
    assert not go(config, tmp_path / "run").failed
    rows = rows_of(tmp_path / "run")
    for metric in ("pearson", "spearman"):
        assert {row.task for row in rows if row.metric == metric} == {"rating", "other"}
    directory = open_run(tmp_path / "run")
    assert {name: about.metric for name, about in study_of(directory).tasks.items()} == {
        "mini/mnli": "macro_f1",
        "rating": "pearson",
        "other": "pearson",
    }
    tables = {table.name: table.csv() for table in report_run(tmp_path / "run", tmp_path / "report")}
    assert "other (Pearson)" in tables["table4_1_f"]
    assert "Pearson" in tables["sources"].splitlines()[0]


def test_a_run_goes_through_the_templates_of_its_style(tmp_path, monkeypatch):
    path = write_rating(tmp_path)
    path.write_text('instruct = "rate this: {text}"\n' + path.read_text())
    config = {"families": [{"name": "f", "sources": [str(path)]}], "experiments": ["sources"]}
    read = []
    real = score.evaluate_readers
    monkeypatch.setattr(
        score, "evaluate_readers", lambda b, parts, *rest: read.append(parts[0][0]) or real(b, parts, *rest)
    )
    for style in ("text", "instruct"):
        assert not go(tiny(**config, style=style), tmp_path / style).failed
        assert read[-1].examples("test")[0].source.startswith("rate this: ") == (style == "instruct")
        assert dict(study_of(open_run(tmp_path / style)).facts)["templates"] == style
    with pytest.raises(tpv.TpvError, match=r"style was 'instruct', is 'text'"):
        go(tiny(**config), tmp_path / "instruct")
    with pytest.raises(tpv.TpvError, match=r"style was 'text', is 'instruct'"):
        go(tiny(**config, style="instruct"), tmp_path / "text")


def local_copy(folder, **changed):
    """A local copy of a hub data set, a row of a split changed where asked."""
    (folder / "sst2").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [{"sentence": f"{split} {i}", "label": i % 2} for i in range(8)]
        rows[0]["sentence"] = changed.get(split, rows[0]["sentence"])
        (folder / "sst2" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_a_run_says_which_rows_of_which_split_it_was_made_from(tmp_path):
    families = [{"name": "f", "sources": ["sst2", "mini/mnli"], "targets": [str(write_rating(tmp_path))]}]
    config = tiny(families=families, experiments=["sources"], data_dir=local_copy(tmp_path / "data"))
    go(config, tmp_path / "run", limit=1)
    said = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert list(said) == ["sst2", "mini/mnli", "rating"]
    assert said["sst2"]["from"] == {
        "local copy": str(tmp_path / "data" / "sst2"),
        "of hub data set": "stanfordnlp/sst2",
    }
    assert said["mini/mnli"]["from"] == {"generator": "mnli"}
    assert said["rating"]["from"] == {f"{split} file": str(tmp_path / "rating.csv") for split in ("train", "test")}
    sha = hashlib.sha256()
    for i in range(8):
        sha.update(json.dumps([f"test.jsonl:{i}", f"sst2 sentence: test {i}", SENTIMENT[i % 2]]).encode() + b"\n")
    assert said["sst2"]["test"] == {"rows": 8, "sha256": sha.hexdigest()}
    assert [said["mini/mnli"][split]["rows"] for split in ("train", "validation", "test")] == [20, 10, 12]
    assert len({about["sha256"] for task in said.values() for name, about in task.items() if name != "from"}) == 9


def test_rows_that_changed_are_refused_with_their_split(tmp_path):
    families = [{"name": "f", "sources": ["sst2", "mini/mnli"]}]

    def with_rows(name, **changed):
        return tiny(families=families, experiments=["sources"], data_dir=local_copy(tmp_path / name, **changed))

    go(with_rows("whole"), tmp_path / "run", limit=1)
    go(with_rows("moved"), tmp_path / "run", limit=1)  # the same rows elsewhere
    with pytest.raises(tpv.TpvError, match=r"rows of task 'sst2' are not those.*; got other test rows; put"):
        go(with_rows("one", test="x"), tmp_path / "run")
    with pytest.raises(tpv.TpvError, match="got other train and validation rows; put"):
        go(with_rows("two", train="x", validation="y"), tmp_path / "run")
    for content in (None, "[]", '{"sst2": 3}', "{"):  # from before there was such a file, or spoilt
        (tmp_path / "run" / "splits.json").unlink(missing_ok=True)
        if content:
            (tmp_path / "run" / "splits.json").write_text(content)
        with pytest.raises(tpv.TpvError, match=r"are not those that run directory .* was made with; put the data back"):
            go(with_rows(f"so{content}", test="x"), tmp_path / "run")
    assert not go(with_rows("end"), tmp_path / "run").failed


def test_what_is_cut_is_counted_once_a_split():
    told = [
        str(tpv.CutWarning.of(*about))
        for about in (
            (2, 8, "task 'a (b), 1 of 2' (train)", 64),
            (3, 100, "task 'a (b), 1 of 2' (train)", 64),
            (1, 5, "task 'c' (test)", 64),
            (3, 100, "task 'a (b), 1 of 2' (train)", 64),
        )
    ]
    assert cut_summary(told) == (
        "task 'a (b), 1 of 2' (train) 3 of 100 longer than 64 tokens, task 'c' (test) 1 of 5 longer than 64 tokens"
    )
    assert cut_summary([]) == cut_summary(["something else"]) == ""
