"""The first hour: `tpv` alone, `tpv doctor`, completion, `tpv tasks`, the dry run of a tuning, and few rows."""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
from places import ROOT
from typer.main import get_command

import tpv
from tpv.cli import machine
from tpv.cli.app import START, app
from tpv.evaluation.tuned import Tuned

FEW = ["--tokens", 4, "--steps", 6, "--batch-size", 8, "--device", "cpu"]


@pytest.fixture
def few(tmp_path):
    """Fifty reviews, some of them long."""
    words = {"no": ["bad", "dull", "awful", "weak"], "yes": ["good", "great", "funny", "warm"]}
    path = tmp_path / "few.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars"])
        for i in range(50):
            label = ["no", "yes"][i // 4 % 2]
            writer.writerow([f"the plot is {words[label][i % 4]}, part {i}{' and on' * (i % 9)}", label])
    return path


def own(path):
    return ["--train", path, "--text", "review", "--label", "stars"]


# --- tpv ------------------------------------------------------------------------------------------
def test_tpv_alone_says_where_to_start(run):
    code, out, err = run()
    assert (code, out, err) == (0, START + "\n", "")
    assert max(map(len, START.splitlines())) <= 100
    commands = get_command(app).commands
    named = [line.split("tpv ", 1)[1].split() for line in START.splitlines() if "tpv " in line]
    for words in named:
        if words[0] in commands:
            known = {option for parameter in commands[words[0]].params for option in parameter.opts}
            assert {word for word in words[1:] if word.startswith("--")} <= known, words
        else:
            assert words[0].rstrip(",:") in ("--help", "--install-completion", "tasks", "task"), words


def test_help_is_as_before(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "doctor" in out
    assert "--install-completion" in out


# --- doctor ---------------------------------------------------------------------------------------
@pytest.fixture
def hub(monkeypatch):
    answers = []
    monkeypatch.setattr("tpv.hub.hub_answers", lambda: answers[-1] if answers else False)
    monkeypatch.delenv("TPV_DATA_DIR", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return answers


def diagnosis(run, *args):
    code, out, err = run("doctor", "--json", *args)
    return code, {check["name"]: check for check in map(json.loads, out.splitlines())}, err


def test_doctor_looks_at_everything(run, hub):
    code, found, err = diagnosis(run)
    assert (code, err) == (0, "")
    head = ["versions", "device", "precision", "memory", "model", "model cache", "own cache", "hub", "data"]
    assert list(found)[:9] == head
    assert f"tpv {tpv.__version__}" in found["versions"]["text"]
    assert "does not answer within 5 s" in found["hub"]["text"]
    assert found["hub"]["state"] == "note"
    hub.append(True)
    assert diagnosis(run)[1]["hub"]["state"] == "ok"
    code, out, _ = run("doctor")
    assert code == 0
    assert all(name in out for name in found)


def test_doctor_knows_every_extra(run, hub):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(machine.EXTRAS) == set(extras) - {"dev"}
    for name, (module, _) in machine.EXTRAS.items():
        assert any(module == re.split(r"[\[<>=]", line)[0].replace("-", "_") for line in extras[name])


@pytest.mark.parametrize("native", [False, True])
def test_doctor_says_which_precision_is_fast(native, run, hub, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(machine, "bf16_on_cpu", lambda: native)
    check = diagnosis(run)[1]["precision"]
    assert check["state"] == ("ok" if native else "note")
    assert ("--precision bf16 is slower" in check["text"]) is not native


def test_doctor_and_data(run, hub, tmp_path, monkeypatch):
    code, found, err = diagnosis(run, "--data-dir", tmp_path / "nothing")
    assert code == 1
    assert found["data"]["state"] == "broken"
    assert err == "broken: data\n"
    assert diagnosis(run, "--data-dir", tmp_path)[1]["data"]["state"] == "note"
    (tmp_path / "sst2").mkdir()
    monkeypatch.setenv("TPV_DATA_DIR", str(tmp_path))
    code, found, _ = diagnosis(run)
    assert code == 0
    assert "holds 1 tasks: sst2" in found["data"]["text"]


def test_doctor_goes_on_after_something_broken(run, hub, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("token hf_abcdefghijk is\nwrong")

    monkeypatch.setattr("tpv.load_backbone", broken, raising=False)
    code, found, err = diagnosis(run)
    assert code == 1
    assert found["model"] == {"name": "model", "state": "broken", "text": "RuntimeError: token hf_… is"}
    assert "smollm2" in found
    assert err == "broken: model\n"


def test_doctor_offline(run, hub, monkeypatch):
    monkeypatch.setattr("tpv.hub.offline", lambda: True)
    assert "HF_HUB_OFFLINE" in diagnosis(run)[1]["hub"]["text"]


# --- completion -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tpv doc", {"doctor"}),
        ("tpv tune --dry", {"--dry-run"}),
        ("tpv tune --task mini/ss", {"mini/sst2", "mini/sst5"}),
        ("tpv tasks mini/tr", {"mini/trec"}),
        ("tpv tune --model sm", {"smollm2"}),
        ("tpv library sh", {"show"}),
    ],
)
def test_completion_in_a_shell(line, expected):
    words = line.split(" ")
    settings = {"_TPV_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; sys.argv = ['tpv']; from tpv.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == expected, done.stderr


# --- tasks ----------------------------------------------------------------------------------------
def test_tasks_say_what_needs_the_network(run, tmp_path, monkeypatch):
    monkeypatch.delenv("TPV_DATA_DIR", raising=False)
    code, out, _ = run("tasks")
    assert code == 0
    lines = {
        line.split("│")[1].strip(): line.split("│")[4].strip() for line in out.splitlines() if line.startswith("│")
    }
    assert lines["mini/sst2"] == "come with tpv"
    assert lines["sst2"] == "network: stanfordnlp/sst2"
    assert lines["text/relations"] == "a folder of yours"
    assert "TPV_DATA_DIR or --data-dir, is not set" in out
    (tmp_path / "sst2").mkdir()
    code, out, _ = run("tasks", "--data-dir", tmp_path)
    lines = {
        line.split("│")[1].strip(): line.split("│")[4].strip() for line in out.splitlines() if line.startswith("│")
    }
    assert (lines["sst2"], lines["trec"]) == ("local copy", "network: CogComp/trec")


# --- before a tuning --------------------------------------------------------------------------------
def titles(text):
    return {line[:10].strip(): line[11:] for line in text.splitlines() if re.match(r"[a-z ]{10} \S", line)}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(few, run):
    before = sorted(few.parent.rglob("*"))
    code, out, err = run("tune", *own(few), "--dry-run", *FEW, "--max-input-length", 20)
    assert code == 0, err
    said = titles(out)
    assert list(said) == ["rows", "labels", "truncated", "steps", "rate", "time", "few rows"]
    assert said["rows"].startswith("41 to train on; 4 to choose")
    assert "5 to test on, held out" in said["rows"]
    assert re.fullmatch(r"(no 2\d, yes 2\d|yes 2\d, no 2\d) \(of the training rows\)", said["labels"])
    assert said["steps"].startswith("6 of 8 rows (1 epochs), the checkpoint chosen by loss in 1 validation")
    assert said["rate"] == "0.3 at its peak (auto, fitted to the model), after 0 steps of warm-up; then linear"
    assert re.match(r"about \d+ s; a step takes", said["time"])
    assert "0.57 to 1.00" in said["few rows"]
    assert sorted(few.parent.rglob("*")) == before


def test_the_real_run_says_the_same_and_what_it_truncated(few, run, tmp_path):
    args = ["tune", *own(few), *FEW, "--max-input-length", 20]
    dry = titles(run(*args, "--dry-run")[1])
    code, out, err = run(*args, "--out", tmp_path / "out")
    assert code == 0, err
    real = titles(err)
    assert {**dry, "time": ""} == {**real, "time": ""}
    cut = [list(map(int, found)) for found in re.findall(r"(\d+) of (\d+) texts of task", err)]
    share = re.match(r"(\d+) of (\d+) texts", real["truncated"])
    assert [sum(column) for column in zip(*cut, strict=True)] == list(map(int, share.groups()))
    tuned = re.search(r"tuned, few: exact match (\S+) on 5 rows, 95 % interval (\S+) to (\S+): few rows", out)
    assert float(tuned[2]) <= float(tuned[1]) <= float(tuned[3])
    history = list(csv.DictReader((tmp_path / "out" / "history.csv").open()))
    assert [row["step"] for row in history] == list("123456")
    assert history[-1]["score"] != ""


def test_a_long_real_run_has_its_time(few, run, tmp_path):
    code, _, err = run("tune", *own(few), "--out", tmp_path / "out", *FEW, "--steps", 41, "--select", "last")
    assert code == 0
    assert "a step takes" in titles(err)["time"]


def test_a_folder_is_needed_but_for_a_dry_run(few, run):
    code, _, err = run("tune", *own(few), *FEW)
    assert code == 2
    assert err == "error: --out; expected a folder for what is trained; got none; or --dry-run\n"


def test_a_dry_run_refuses_what_the_run_would(few, run):
    for wrong in (["--label", "nothing"], ["--select", "pearson"], ["--model", "no-such"], ["--init", "zeros"]):
        code, out, err = run("tune", *own(few), "--dry-run", *FEW, *wrong)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")


def test_folds_judge_all_rows_and_all_rows_train(few, run, tmp_path, backbone):
    args = [*own(few), *FEW, "--steps", 30, "--folds", 5]
    code, out, err = run("tune", *args, "--out", tmp_path / "out")
    assert code == 0, err
    task = tpv.load_task(few, text="review", label="stars", hold_out=False)
    init = tpv.SoftPrompt.sample(backbone, 4, seed=0)
    recipe = tpv.Recipe(steps=30, batch_size=8, select="last")
    found = tpv.cross_validate(backbone, task, init, recipe, callback=lambda _: None)
    low, high = found.scores.interval("accuracy")
    said = f"accuracy {found.scores.accuracy:.3f} on 50 rows, 95 % interval {low:.2f} to {high:.2f} (folds "
    assert f"5-fold cross-validation: {said}" in out
    assert ("not clearly better" in out) is (low <= found.scores.majority)
    written = Tuned.load(tmp_path / "out")
    assert written.prompt == tpv.fit(backbone, task, init, recipe, callback=lambda _: None)
    assert written.about.calibrator == found.calibrator
    said = titles(err)
    assert said["rows"] == "50 to train on"
    assert "5 prompts more" in said["steps"]
    assert "few rows" not in said


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--folds", 1], "--folds; expected at least 2; got 1"),
        (["--folds", 5, "--select", "accuracy"], "no --validation, --select or --patience"),
        (["--folds", 5, "--validation", "few.csv"], "no --validation, --select or --patience"),
        (["--folds", 500], "expected a whole number from 2 to 50"),
        (["--folds", 5, "--portable"], "without --from, --shots, --find-lr, --folds, --dry-run and --method"),
        (["--dry-run", "--composable"], "--dry-run"),
    ],
)
def test_folds_that_cannot_be(wrong, message, few, run, tmp_path):
    code, _, err = run("tune", *own(few), *FEW, *wrong, "--out", tmp_path / "out")
    assert code == 2
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "out" / "prompt.safetensors").exists()


def test_evaluate_says_how_sure_a_score_is(few, run, tmp_path):
    assert run("tune", *own(few), *FEW, "--folds", 2, "--out", tmp_path / "out")[0] == 0
    code, out, err = run("evaluate", tmp_path / "out", "--test", few, "--device", "cpu")
    assert code == 0, err
    assert re.search(r"exact match \d\.\d{3} on 50 rows, 95 % interval \d\.\d\d to \d\.\d\d\n", out)


def test_a_dry_run_of_a_text_task(few, run):
    code, out, err = run("tune", "--train", few, "--text", "review", "--target", "stars", "--dry-run", *FEW)
    assert code == 0, err
    said = titles(out)
    assert said["labels"] == "none: the output is text"
    assert "a step takes" in said["time"]


def test_a_dry_run_says_when_nothing_of_the_texts_is_left(few, run):
    template = "Say whether this review praises the place or complains about it: {review}"
    code, out, err = run("tune", *own(few), "--template", template, "--dry-run", *FEW, "--max-input-length", 12)
    assert code == 0, err
    tokens = len(tpv.load_backbone("mini", device="cpu").encode_sources([template.format(review="")], 1000)[0])
    assert tokens >= 12
    assert titles(out)["truncated"].startswith(f"all: template, cue and chat take {tokens} tokens")


def test_a_dry_run_counts_the_search_for_a_rate(few, run):
    args = ["tune", *own(few), "--dry-run", *FEW]
    plain, searched = (
        float(re.match(r"about (\d+) s", titles(run(*args, *more)[1])["time"])[1]) for more in ([], ["--find-lr"])
    )
    assert searched > 3 * plain


def test_folds_of_a_text_task(few, run, tmp_path):
    args = ["--train", few, "--text", "review", "--target", "stars", *FEW, "--folds", 2, "--out", tmp_path / "out"]
    code, out, err = run("tune", *args)
    assert code == 0, err
    assert re.search(r"2-fold cross-validation: exact match \d\.\d{3} on 50 rows, 95 % interval", out)
    assert Tuned.load(tmp_path / "out").about.calibrator is None


def test_folds_tell_once_what_is_truncated(few, run, tmp_path):
    code, _, err = run("tune", *own(few), *FEW, "--max-input-length", 20, "--folds", 3, "--out", tmp_path / "out")
    assert code == 0
    assert len(re.findall("were truncated", err)) == 1
