"""Libraries of what tpv makes: tuned folders and run directories; and the commands."""

import json
import re
import shutil
import sys

import pytest
from small_runs import go, rows_of, tiny

import tpv
from tpv.prompts.algebra import TaskPromptVector
from tpv.studies.jobs.train import Train

FAST = ["--tokens", "5", "--steps", "4", "--batch-size", "4", "--device", "cpu", "--calibrate", "none"]
MODES = ("portable", "composable")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run directory with vectors of three modes, in a folder of runs."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    config = tiny(experiments=["cross_initialization"], vectors={"modes": MODES, "training": {"steps": 2}, "inits": 1})
    assert not go(config, folder).failed
    return folder


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory):
    """Folders that `tpv tune` wrote, of two tasks."""
    place = tmp_path_factory.mktemp("tuned")
    for task in ("sst2", "trec"):
        args = ["tpv", "tune", "--task", f"mini/{task}", "--out", str(place / task), *FAST]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", args)
            with pytest.raises(SystemExit) as end:
                tpv.cli.main()
        assert not end.value.code
    return place


@pytest.fixture
def tuned(tuned_once, tmp_path):
    """The same, for a test of its own."""
    return shutil.copytree(tuned_once, tmp_path / "runs")


# --- run directories ------------------------------------------------------------------------------
def test_the_finished_vectors_of_a_run_directory(finished, backbone):
    library = tpv.Library(finished)
    tasks = ("mini-mnli", "mini-qnli")
    expected = {f"{task}-init{seed}" for task in tasks for seed in (0, 1)}
    expected |= {f"{task}-{mode}-init0" for task in tasks for mode in MODES}
    assert set(library.names) == expected
    assert library.left_out == {}
    assert library.folder is None
    rows = {row["name"]: row for row in library.describe().to_pylist()}
    assert [rows[f"mini-mnli{mode}-init0"]["mode"] for mode in ("", "-portable", "-composable")] == ["ordinary", *MODES]
    assert rows["mini-qnli-init1"]["init"] == "vocabulary seed 1"
    assert rows["mini-qnli-init1"]["path"] is None
    assert rows["mini-qnli-init1"]["digest"] is None  # it takes the model
    fresh = library["mini-qnli-portable-init0"]
    assert fresh.terms == {"mini/qnli": 1.0}
    assert rows["mini-qnli-portable-init0"]["digest"] == fresh.digest
    assert TaskPromptVector.load(rows["mini-qnli-portable-init0"]["path"]) == fresh


def test_the_vector_of_a_tuned_prompt_scores_as_the_run_says(finished, backbone):
    vector = tpv.Library(finished, model=backbone)["mini-qnli-init1"]
    task = tpv.load_task("mini/qnli").limited({"test": 12}, 0)
    init = tpv.SoftPrompt.sample(backbone, 3, seed=0)
    (score,) = [
        row.value
        for row in rows_of(finished)
        if (row.task, row.metric, row.vector_seed, row.init_seed, row.mode) == ("mini/qnli", "loss", 1, 0, "ordinary")
        and row.method == "moved"
    ]
    assert tpv.evaluate(backbone, task, init + vector, split="test").loss == pytest.approx(score, rel=1e-5)


def test_a_run_directory_in_a_folder(finished, tmp_path, backbone):
    folder = finished.parent
    library = tpv.Library(folder)
    assert len(library) == 8
    assert library.entry("study/mini-mnli-init0") is library.entry("mini-mnli-init0")
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text("{}")
    assert tpv.Library(folder).left_out == {"unreadable run directory": ["broken"]}
    with pytest.raises(tpv.TpvError, match=r"run\.json"):
        tpv.Library(folder / "broken")


def test_what_is_not_finished_or_is_damaged_is_not_there(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    file = next((copy / "jobs" / Train.kind).glob("*/prompt.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    shutil.rmtree(copy / "jobs" / "vectors")
    assert len(tpv.Library(copy)) == 3


# --- tuned folders --------------------------------------------------------------------------------
def test_tuned_folders_with_their_scores(tuned, backbone):
    library = tpv.Library(tuned, model=backbone)
    assert library.names == ["sst2/vector", "trec/vector"]
    assert library.left_out == {
        "holding a prompt": [f"{task}/{name}.safetensors" for task in ("sst2", "trec") for name in ("init", "prompt")]
    }
    (row, _) = library.describe().to_pylist()
    task = tpv.load_task("mini/sst2")
    score = tpv.evaluate(backbone, task, tpv.SoftPrompt.sample(backbone, 5) + library["sst2/vector"], split="test")
    assert row["scores"] == [
        {
            "task": "mini/sst2",
            "split": "test",
            "start": "vocabulary seed 0",
            "n": score.n,
            "exact_match": pytest.approx(score.exact_match),
            "macro_f1": pytest.approx(score.macro_f1),
            "f1": pytest.approx(score.positive_f1),
            "invalid_rate": pytest.approx(score.invalid_rate),
            "majority": pytest.approx(score.majority),
        }
    ]
    (tuned / "sst2" / "task.toml").write_text("[tuned")
    assert tpv.Library(tuned).describe()["scores"].to_pylist()[0] is None


# --- the commands ---------------------------------------------------------------------------------
def test_add_list_and_show(tuned, tmp_path, run, backbone):
    folder = tmp_path / "vectors"
    code, out, err = run("library", "add", tuned / "sst2", tuned / "trec" / "vector.safetensors", "--to", folder)
    assert (code, err) == (0, "")
    assert out.count("wrote ") == 2
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["sst2.safetensors", "trec.safetensors"]
    vector = TaskPromptVector.load(tuned / "sst2" / "vector.safetensors")
    assert TaskPromptVector.load(folder / "sst2.safetensors") == vector
    code, _, err = run("library", "add", folder / "sst2.safetensors", "--to", folder, "--name", "deep/again")
    assert (code, err) == (0, "")
    code, out, err = run("library", "list", folder)
    assert (code, err) == (0, "")
    for words in ("sst2", "trec", "again", "mini/sst2", "ordinary", "vocabulary seed 0", "exact match"):
        assert words in out
    code, out, _ = run("library", "list", folder, "--json", "--model", "mini")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows == tpv.Library(folder, model=backbone).describe().to_pylist()
    assert rows[0]["digest"] == vector.digest
    code, out, err = run("library", "show", folder, "sst2")
    assert (code, err) == (0, "")
    for words in (f"{vector.norm():.3f}", vector.digest, "1 × mini/sst2, vocabulary seed 0", "sst2.safetensors"):
        assert words in out
    code, out, _ = run("library", "list", tuned)
    assert re.search(r"left out: 4 holding a prompt\n$", out)
    assert len(re.findall(r"0\.\d\d\d mini/", out)) == 2
    code, out, err = run("library", "list", tuned, "--json")
    assert err == "left out: 4 holding a prompt\n"
    assert len(out.splitlines()) == 2


def test_mistakes_are_one_line_and_write_nothing(tuned, tmp_path, run, random_t5):
    folder = tmp_path / "vectors"
    run("library", "add", tuned / "sst2", "--to", folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "run.json").write_text("{}")
    prompt = tpv.SoftPrompt.sample(random_t5(), 5)
    foreign = tmp_path / "foreign.safetensors"
    (prompt.tuned_to(prompt.tensor + 1, "t") - prompt).save(foreign)
    run("library", "list", folder)
    before = sorted(tmp_path.rglob("*"))
    new, vector = tmp_path / "new", tuned / "sst2" / "vector.safetensors"
    cases = {
        "an empty library": (
            ["list", tmp_path / "empty"],
            f"empty holds no vectors; add one: tpv library add VECTOR --to {tmp_path}",
        ),
        "a library of prompts": (
            ["list", tuned / "sst2" / "prompt.safetensors"],
            "expected TaskPromptVector; got SoftPrompt",
        ),
        "a missing folder": (["list", tmp_path / "none"], "no library at"),
        "a missing folder to show": (["show", tmp_path / "none", "sst2"], "no library at"),
        "an unknown name": (["show", folder, "sst"], "no vector 'sst' in the library; did you mean 'sst2'?"),
        "an unknown model": (["list", folder, "--model", "mine"], "did you mean 'mini'?"),
        "a name that is taken": (["add", vector, "--to", folder], "has a vector 'sst2' already"),
        "a name that is no name": (["add", vector, "--to", folder, "--name", "../x"], "name '../x' of a vector"),
        "one name for two": (["add", vector, foreign, "--to", new, "--name", "x"], "--name; expected one vector"),
        "two of a name": (["add", vector, tuned / "sst2", "--to", new], "has a vector 'sst2' already"),
        "of another model": (["add", foreign, "--to", folder], "another model than the library"),
        "two models": (["add", vector, foreign, "--to", new], "another model than the library"),
        "a prompt": (["add", tuned / "sst2" / "prompt.safetensors", "--to", new], "got SoftPrompt"),
        "no vector": (["add", tmp_path / "none.safetensors", "--to", new], "cannot be read"),
        "a folder without one": (["add", tmp_path / "empty", "--to", new], "holds no vector"),
        "a file": (["add", vector, "--to", foreign], "foreign.safetensors cannot be written"),
        "no folder": (["add", vector], "--to"),
        "nothing to add": (["add", "--to", new], "Missing argument"),
    }
    for what, (args, words) in cases.items():
        code, out, err = run("library", *args)
        assert (code, out, err.count("\n")) == (2, "", 1), (what, err)
        assert words in err, what
        assert sorted(tmp_path.rglob("*")) == before, what


def test_a_run_directory_takes_no_vectors(finished, tuned, run):
    code, _, err = run("library", "add", tuned / "sst2", "--to", finished)
    assert (code, err.count("\n")) == (2, 1)
    assert "is a run directory; expected a folder of vectors" in err
    code, out, _ = run("library", "list", finished)
    assert code == 0
    assert "composable" in out


def test_text_of_a_stranger_is_shown_as_text(tmp_path, run):
    vector = tpv.Library({"a": _hostile()})["a"]
    vector.save(tmp_path / "a.safetensors")
    code, out, _ = run("library", "list", tmp_path)
    assert code == 0
    assert "\x1b" not in out
    assert "[bold]" in out
    code, out, _ = run("library", "show", tmp_path, "a")
    assert code == 0
    assert "\x1b" not in out


def _hostile():
    import torch

    from tpv.prompts.provenance import Component, Init, ModelIdentity

    model = ModelIdentity(name="\x1b[2J[bold]m", fingerprint="f" * 64, hidden_size=4)
    part = Component(task="\x1b]0;t[bold]", origin="o", init=Init(kind="text", detail="\x1b[31m"), coefficient=1.0)
    return TaskPromptVector(torch.ones(2, 4), model, (part,))
