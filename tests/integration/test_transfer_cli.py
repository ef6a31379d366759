"""`tpv transfer`, from a file of few rows to labelled texts."""

import json
import re

import pytest

import tpv
from tpv.transfers.problem import LEVELS, Level

ROWS = [
    ("the plot is never dull", "good"),
    ("a dull film", "bad"),
    ("i loved it", "good"),
    ("boring and slow", "bad"),
    ("a fine film with a great cast", "good"),
    ("awful and tedious", "bad"),
    ("warm , funny and engaging", "good"),
    ("it drags on for hours", "bad"),
]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setitem(LEVELS, "quick", Level("quick", sources=1, folds=2, rounds=(0.2,)))


@pytest.fixture
def few(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("review,stars\n" + "\n".join(f'"{text}",{label}' for text, label in ROWS) + "\n")
    return path


@pytest.fixture
def library(tmp_path, backbone):
    folder = tmp_path / "vectors"
    folder.mkdir()
    for seed in (1, 2):
        init, other = (tpv.SoftPrompt.sample(backbone, 4, seed=number) for number in (0, seed))
        (init.tuned_to(other.tensor, f"task{seed}") - init).save(folder / f"v{seed}.safetensors")
    return folder


def columns(few):
    return ["--train", few, "--text", "review", "--label", "stars", "--device", "cpu", "--budget", "quick"]


def test_from_a_few_rows_to_labels(run, few, library, tmp_path):
    out = tmp_path / "out"
    code, said, err = run("transfer", *columns(few), "--library", library, "--out", out)
    assert code == 0, err
    assert "log loss " in said
    assert "ranking 2 sources" in err
    stored = json.loads((out / "transfer.json").read_text())
    assert {row["source"] for row in stored["sources"]} == {"v1", "v2"}
    assert stored["standings"][0]["entrant"] == stored["chosen"]
    page = (out / "transfer.html").read_text()
    assert "v1" in page
    assert not list(tmp_path.glob(".out.race"))
    code, said, err = run("predict", out, "a great film", "--json", "--device", "cpu")
    assert code == 0, err
    row = json.loads(said)
    assert row["predicted"] in ("good", "bad")
    assert 0.5 <= row["probability"] <= 1
    code, said, err = run("evaluate", out, "--test", few, "--device", "cpu")
    assert code == 0, err
    assert " 8 " in said  # all rows were for training: nobody asked for a hold-out


@pytest.mark.parametrize("candidate", ["probe", "instruction"])
def test_what_trains_no_prompt_serves_too(run, few, tmp_path, candidate):
    out = tmp_path / "out"
    code, said, err = run("transfer", *columns(few), "--candidate", candidate, "--out", out)
    assert code == 0, err
    code, said, err = run("predict", out, "a great film", "slow", "--device", "cpu")
    assert code == 0, err
    assert len(said.splitlines()) == 2
    if candidate == "probe":  # which ranks labels and writes nothing
        code, said, err = run("evaluate", out, "--test", few, "--device", "cpu")
        assert code == 0, err
        assert re.search(r": accuracy \d\.\d+ on 8 rows, 95 % interval", said)
        assert not re.search("exact match|F1|invalid", said)
        code, said, err = run("generate", out, "a great film", "--device", "cpu")
        assert code == 2, said
        assert "tpv predict" in err
    for file in sorted(out.glob("*.safetensors")):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        code, said, err = run("predict", out, "a great film", "--device", "cpu")
        assert code == 2, file
        assert len(err.strip().splitlines()) == 1
        file.write_bytes(whole)


def test_mistakes_end_in_one_line(run, few, library, tmp_path):
    one = tmp_path / "one.csv"
    one.write_text("review,stars\n" + "\n".join(f'"{text}",{label}' for text, label in ROWS[:3]) + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        (["--train", one, *columns(few)[2:]], "at least two of each label"),
        ([*columns(few), "--library", empty], "the library is empty"),
        ([*columns(few), "--library", tmp_path / "none"], "no library at"),
        ([*columns(few), "--candidate", "prob"], "unknown candidate 'prob'"),
        ([*columns(few), "--shots", 99], "shots"),
        ([*columns(few), "--candidate", "source"], "give a library"),
        ([*columns(few), "--label", "star"], "star"),
    ]
    for options, message in cases:
        code, said, err = run("transfer", *options, "--out", tmp_path / "out")
        assert code == 2, (options, said, err)
        assert message in err
        assert not (tmp_path / "out").exists()
