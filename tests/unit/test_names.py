"""Names and links of strangers lead to no place outside of the folder that was named."""

import json
import os

import pytest

import tpv
from tpv import files
from tpv.execution.artifacts import Store
from tpv.execution.directory import locked, open_run
from tpv.execution.tracking import trackers
from tpv.studies.config import build_config

NAMES = ["..", "../../outside", "/tmp/outside", "a\0b", "\u5b57" * 120, "-rf"]
CONFIG = {
    "name": "n",
    "model": {"name": "mini"},
    "prompt": {"tokens": 2},
    "families": [{"name": "f", "sources": ["mini/sst2"]}],
}


def everything(folder):
    """Paths and contents below a folder, links not followed."""
    return {
        str(path): os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def victim(tmp_path):
    """A folder of somebody, with files of the kinds that a report replaces."""
    place = tmp_path / "victim"
    place.mkdir()
    for name in ("precious.csv", "precious.svg", "keys"):
        (place / name).write_text("precious")
    return place


@pytest.mark.parametrize("name", ["tables", "figures", "jobs", "checkpoints", "trackers", ".lock", "jobs/train"])
def test_a_run_directory_with_a_link_in_it_is_refused(name, victim, tmp_path):
    out = tmp_path / "run"
    (out / "jobs").mkdir(parents=True)
    (out / name).rmdir() if (out / name).exists() else None
    (out / name).symlink_to(victim / "keys" if name == ".lock" else victim)
    (out / "run.json").write_text("{}")
    before = everything(tmp_path)
    with pytest.raises(tpv.TpvError, match=rf"{name} is a link"), locked(out):
        pytest.fail("it was taken")
    with pytest.raises(tpv.TpvError, match=rf"{name} is a link"):
        open_run(out)
    assert everything(tmp_path) == before


def test_a_run_directory_may_be_a_link_itself(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with locked(tmp_path / "run"), Store(tmp_path / "run").writing("train", "0" * 32, {}) as part:
        (part / "a").write_text("a")
    assert (tmp_path / "disk" / "jobs" / "train" / ("0" * 32) / "a").read_text() == "a"


def test_a_folder_with_a_link_in_it_gets_no_files(victim, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "tables").symlink_to(victim)
    before = everything(tmp_path)

    def write():
        with files.staged_folder(out) as stage:
            (stage / "a").write_text("a")
            (stage / "tables" / "deep").mkdir(parents=True)
            (stage / "tables" / "deep" / "precious.csv").write_text("other")

    with pytest.raises(tpv.TpvError, match="tables is a link"):
        write()
    assert everything(tmp_path) == before


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(victim, tmp_path, backbone):
    link = tmp_path / "p.safetensors"
    link.symlink_to(victim / "keys")
    tpv.SoftPrompt.sample(backbone, num_tokens=2, seed=0).save(link)
    assert not link.is_symlink()
    assert (victim / "keys").read_text() == "precious"


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_task_is_no_path(name, run, tmp_path):
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    (work / "rows.csv").write_text(
        "text,label\n" + "".join(f"the number {i},{['not', 'good'][i % 2]}\n" for i in range(12))
    )
    text = 'fields = ["text"]\ntemplate = "{text}"\nlabels = ["not", "good"]\nsource = {kind = "files", train = "rows.csv"}\n'
    (work / "own.toml").write_text(f"name = {json.dumps(name)}\n{text}")
    before = everything(tmp_path)
    short = ["--tokens", 2, "--steps", 1, "--batch-size", 2, "--task", work / "own.toml"]
    code, _, err = run("tune", "--composable", *short, "--task", "mini/sst2", "--out", work / "out")
    new = [path for path in everything(tmp_path) if path not in before]
    assert all(path.startswith(f"{work / 'out'}") for path in new)
    if code:
        assert code == 2
        assert err.startswith("error: ")
        assert new == []
    else:
        assert len([path for path in new if path.endswith(".safetensors")]) == 2


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "..", "a/b"])
def test_the_name_of_a_study_is_no_path_for_a_tracker(name, tmp_path, monkeypatch):
    projects = []

    class Accelerator:
        def __init__(self, **_):
            pass

        def init_trackers(self, project, config):
            projects.append(project)

        def end_training(self):
            pass

    monkeypatch.setattr("accelerate.Accelerator", Accelerator)
    with trackers(
        build_config(CONFIG | {"name": name, "run": {"trackers": ["tensorboard"]}}, where="config"), tmp_path
    ):
        pass
    (project,) = projects
    assert "/" not in project
    assert project not in ("", ".", "..")
