"""Several workers: the same results as one, whoever dies over them; and how long they take."""

import json
import random
import shutil
import sys
from pathlib import Path

import kills
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import go, tiny, write_config

import tpv
from tpv.errors import TpvError
from tpv.execution.directory import open_run
from tpv.execution.estimate import makespan
from tpv.execution.execute import MOST_DEATHS
from tpv.execution.executors import ExecutorName, LocalExecutor, ProcessExecutor, executor_of
from tpv.execution.executors.processes import _gpus_of
from tpv.execution.manifest import essential
from tpv.execution.plan import unit_needs, work_units
from tpv.files import unused
from tpv.studies import cells as protocol
from tpv.studies.jobs.attempt import Attend
from tpv.studies.jobs.base import in_order
from tpv.studies.vectors import source_prompt

ONE = {"energy": False, "cpus": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "one"
    assert not go(tiny(run=ONE), folder).failed
    return folder


def test_two_processes_end_with_the_results_of_one(finished, tmp_path):
    config = tiny(run=ONE)
    outcome = go(config, tmp_path / "two", executor=ProcessExecutor(config, tmp_path / "two", 2))
    assert (outcome.failed, outcome.left) == ({}, 0)
    assert kills.content(tmp_path / "two") == kills.content(finished)
    manifests = [(folder / "run.json").read_bytes() for folder in (finished, tmp_path / "two")]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_one_is_killed_and_the_results_are_the_same(tmp_path, victim):
    config = write_config(tmp_path / "killed.toml", '["sources"]')
    assert kills.main(config, times=1, seed=2, folder=tmp_path, victim=victim, workers=2) == 0


def test_units_may_end_in_any_order(finished, tmp_path):
    """Three are at work at a time and end in an order drawn at random; nothing starts before what it needs is there."""

    class Three(LocalExecutor):
        def __enter__(self):
            self.rng, self.held = random.Random(0), []
            return super().__enter__()

        @property
        def idle(self):
            return 3 - len(self.held)

        def submit(self, jobs, step):
            there = open_run(tmp_path)
            assert all(there.done(need) for job in jobs for need in job.needs())
            self.held.append((jobs, step))
            most.append(len(self.held))

        def wait(self):
            super().submit(*self.held.pop(self.rng.randrange(len(self.held))))
            return super().wait()

    most = []
    config = tiny(run=ONE)
    outcome = go(config, tmp_path, executor=Three(config, tmp_path))
    assert not outcome.failed
    assert max(most) == 3
    assert kills.content(tmp_path) == kills.content(finished)
    assert not go(config, tmp_path, limit=1).ran


def test_a_unit_that_kills_its_workers_is_given_up_and_named(finished, tmp_path, capsys):
    class Deadly(LocalExecutor):
        def wait(self):
            jobs, _ = self._work
            if isinstance(jobs[0], Attend):
                self._work = None
                unused(tmp_path / "jobs" / "train", ".part-").mkdir()  # it was writing
                return jobs, "exit code -9"
            return super().wait()

    config = tiny(run=ONE)
    outcome = go(config, tmp_path, executor=Deadly(config, tmp_path))
    assert outcome.failed
    assert all(isinstance(job, Attend) for job in outcome.failed)
    assert set(outcome.failed.values()) == {f"its worker died {MOST_DEATHS} times over it: exit code -9"}
    assert outcome.blocked > 0
    assert "a worker died (exit code -9): ATTEMPT" in capsys.readouterr().err
    assert not list(tmp_path.rglob(".part-*"))
    assert not go(config, tmp_path).failed
    assert kills.content(tmp_path) == kills.content(finished)


def test_what_a_worker_takes_is_no_part_of_what_a_run_is(finished, tmp_path):
    config = tiny(run={"energy": False, "cpus": 2, "gpus": 0.25})
    assert essential(config) == essential(tiny(run=ONE))
    assert go(config, finished).ran == 0


def test_several_workers_are_refused_where_their_number_would_show(tmp_path, monkeypatch):
    with pytest.raises(TpvError, match=r"--workers 2; expected \[run\] cpus in the config"):
        ProcessExecutor(tiny(), tmp_path, 2)
    config = tiny(run=ONE)
    with pytest.raises(TpvError, match="--address is of a Ray cluster"):
        executor_of(config, tmp_path, ExecutorName.local, 1, "auto")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TpvError, match=r"pip install 'tpv\[ray\]'"):
        executor_of(config, tmp_path, ExecutorName.ray, 1, None)
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_load_is_told_by_a_worker_too(tmp_path):
    config = tiny(model={"name": str(tmp_path / "none")}, run=ONE)
    with pytest.raises(TpvError, match="none"):
        go(config, tmp_path / "out", executor=ProcessExecutor(config, tmp_path / "out", 1))
    assert not (tmp_path / "out").exists()


def test_gpus_are_shared_out_whole_or_in_fractions():
    assert _gpus_of(3, 1, ["4", "5", "7"]) == ["4", "5", "7"]
    assert _gpus_of(5, 0.5, ["0", "1", "2"]) == ["0", "0", "1", "1", "2"]
    assert _gpus_of(6, 0.3, ["0", "1"]) == ["0"] * 3 + ["1"] * 3
    with pytest.raises(TpvError, match=r"--workers 3; expected at most 2: 1 GPUs, 0\.4 for each worker"):
        _gpus_of(3, 0.4, ["0"])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_a_makespan_lies_between_its_bounds(costs, workers):
    config = tiny()
    every = work_units(config, in_order(cell.job for cell in protocol.cells(config)))
    costs = [costs[i % len(costs)] for i in range(len(every))]
    longest = []
    for cost, before in zip(costs, unit_needs(every), strict=True):
        longest.append(cost + max((longest[number] for number in before), default=0.0))
    total, took = sum(costs), makespan(every, costs, workers)
    assert makespan(every, costs, 1) == pytest.approx(total)
    assert makespan(every, costs, len(every)) == pytest.approx(max(longest))
    # Graham's bound for any order of starting
    assert max([*longest, total / workers]) <= took * (1 + 1e-9) + 1e-9
    assert took <= total / workers + max(longest) * (1 - 1 / workers) + 1e-6


def test_what_is_damaged_is_named(finished, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(finished, folder)
    table = min((folder / "jobs" / "compare").iterdir()) / "cosines.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    record = min((folder / "jobs" / "search").iterdir()) / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"scale": 9}))
    (folder / "results.parquet").write_bytes(b"")
    outcome = go(tiny(run=ONE), folder)
    assert len(outcome.damaged) == 3
    for path in (table, record, folder / "results.parquet"):
        assert any(str(path) in text for text in outcome.damaged), path
    assert kills.content(folder) == kills.content(finished)
    assert go(tiny(run=ONE), folder).damaged == []


def test_the_command_says_what_it_found_damaged(tmp_path, run):
    config = write_config(tmp_path / "c.toml", '["similarity"]')
    code, _, _ = run("run", config, "--out", tmp_path / "out")
    assert code == 0
    prompt = min((tmp_path / "out" / "jobs" / "train").iterdir()) / "prompt.safetensors"
    data = bytearray(prompt.read_bytes())
    data[len(data) // 2] ^= 4
    prompt.write_bytes(data)
    code, out, errors = run("run", config, "--out", tmp_path / "out")
    assert code == 0
    assert f"damaged, made again: file {prompt} is damaged" in errors
    assert "jobs run now" in out
    assert isinstance(tpv.SoftPrompt.load(prompt), tpv.SoftPrompt)


def test_the_same_artifact_is_not_put_in_place_twice(finished, tmp_path):
    """A worker that was taken for dead may publish again what others read by now."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    directory = open_run(folder)
    job = source_prompt(tiny(), "mini/mnli", 0)
    place = Path(directory.folder_of(job))
    before, content = place.stat().st_ino, (place / "prompt.safetensors").read_bytes()
    for changed in (b"", b" "):
        about = {"inputs": directory.inputs(job)}
        with directory.store.writing("train", directory.keys(job), about) as part:
            (part / "prompt.safetensors").write_bytes(content + changed)
        assert (place.stat().st_ino == before) == (not changed)
        assert (place / "prompt.safetensors").read_bytes() == content + changed
    assert not list(folder.rglob(".part*"))
