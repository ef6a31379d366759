"""Run directories at URLs: what is there is what a folder would hold, wherever it is worked on."""

import shutil
from pathlib import Path

import fsspec
import kills
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_runs import go, tiny, write_config

from tpv.errors import TpvError
from tpv.execution.execute import run as execute
from tpv.execution.progress import Reporter
from tpv.execution.remote import RemoteStore, working_folder

CONFIG = {"experiments": ["sources", "similarity"], "run": {"energy": False, "cpus": 1}}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Go to another machine, with a cache of its own."""

    def go_to(name):
        monkeypatch.setenv("TPV_CACHE", str(tmp_path / name))

    go_to("one")
    return go_to


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror") / "plain"
    assert not go(tiny(**CONFIG), folder).failed
    return folder


@pytest.fixture
def store():
    """An object store in this process's memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def brought(store, folder):
    """The run directory at memory://bucket/run as a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in store.find("/bucket/run"):
        path = folder / name.removeprefix("/bucket/run/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.cat_file(name))
    return folder


URL = "memory://bucket/run"


def test_a_run_at_a_url_is_the_run_in_a_folder(finished, machine, store, tmp_path):
    config = tiny(**CONFIG)
    outcome = go(config, working_folder(URL), limit=3)
    assert outcome.left
    assert brought(store, tmp_path / "half").joinpath("results.parquet").exists()
    machine("two")
    rest = go(config, working_folder(URL + "/"))
    assert (rest.ran, rest.failed) == (outcome.left, {})
    assert kills.content(brought(store, tmp_path / "whole")) == kills.content(finished)
    machine("three")
    assert go(config, working_folder(URL)).ran == 0
    with pytest.raises(TpvError, match="with another config"):
        go(tiny(**CONFIG, prompt={"tokens": 4}), working_folder(URL))
    store.rm("/bucket/run", recursive=True)  # what is at the URL decides, not what was worked on here
    assert go(config, working_folder(URL)).ran == 0
    assert kills.content(brought(store, tmp_path / "again")) == kills.content(finished)


def test_what_is_damaged_or_half_there_is_made_again(finished, machine, store, tmp_path):
    config = tiny(**CONFIG)
    go(config, working_folder(URL))
    (prompt,) = store.glob("/bucket/run/jobs/train/*/prompt.safetensors")[:1]
    store.pipe_file(prompt, store.cat_file(prompt)[:-1] + b"x")
    record = store.glob("/bucket/run/jobs/score/*/record.json")[0]
    store.rm(record)
    machine("two")
    outcome = go(config, working_folder(URL))
    assert outcome.ran > 1
    assert any("prompt.safetensors is damaged" in text for text in outcome.damaged)
    assert kills.content(brought(store, tmp_path / "whole")) == kills.content(finished)


def test_killed_before_it_was_sent_it_is_sent_by_the_next(finished, machine, store, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    real, sent = RemoteStore.send, []

    def send(self, *names):
        sent.extend(names)
        if sum(name.endswith("record.json") for name in sent) == 3:
            real(self, *names[:1])
            raise Killed
        real(self, *names)

    config = tiny(**CONFIG)
    monkeypatch.setattr(RemoteStore, "send", send)
    with pytest.raises(Killed):
        execute(config, working_folder(URL), reporter=Reporter)
    monkeypatch.undo()
    monkeypatch.setenv("TPV_CACHE", str(tmp_path / "one"))
    before = kills.artifacts(brought(store, tmp_path / "half"))
    assert before == 2
    assert not go(config, working_folder(URL)).failed
    assert kills.content(brought(store, tmp_path / "whole")) == kills.content(finished)


def test_a_store_that_does_not_answer_stops_the_run_in_one_line(machine, store, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(TpvError, match=r"memory://bucket/run cannot be written: splits.json; got PermissionError: Acc"):
        go(tiny(**CONFIG), working_folder(URL))
    with pytest.raises(TpvError, match="foo://a/b cannot be opened; got ValueError: Protocol not known"):
        working_folder("foo://a/b")
    assert str(RemoteStore("s3://name:secret@bucket/run", Path())) == "s3://bucket/run"


def test_the_commands_take_a_url(machine, run, tmp_path):
    config = write_config(tmp_path / "c.toml", '["similarity"]')
    url = f"file://{tmp_path}/there"
    code, out, _ = run("run", config, "--out", url, "--limit", 2)
    assert code == 0
    assert f"`tpv run {config} --out {url} --limit 2` resumes" in out
    assert (tmp_path / "there" / "run.json").exists()
    code, out, _ = run("run", config, "--out", url)
    assert code == 0
    assert f"`tpv report {url}` makes the report" in out
    code, out, _ = run("plan", config, "--out", url, "--no-estimate")
    assert code == 0
    code, out, _ = run("report", url, "--out", tmp_path / "report")
    assert code == 0
    assert (tmp_path / "report" / "report.html").exists()
    assert not (tmp_path / "there" / "report.html").exists()
