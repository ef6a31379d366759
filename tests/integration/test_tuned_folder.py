"""A tuned folder is complete: it labels texts and files, and scores itself, with nothing else said."""

import csv
import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tpv
from tpv.evaluation import label_file as label_files
from tpv.evaluation.tuned import Tuned

WORDS = {"no": ["bad", "dull", "awful", "weak"], "yes": ["good", "great", "funny", "warm"]}


def reviews(count, start=0):
    return [
        {"review": f"the plot is {WORDS[label][i % 4]}, part {i}", "stars": label}
        for i in range(start, start + count)
        for label in [["no", "yes"][i // 4 % 2]]
    ]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that `tpv tune` wrote, with a template, from own data."""
    place = tmp_path_factory.mktemp("tuned")
    write_csv(place / "reviews.csv", reviews(120))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys,
            "argv",
            [
                "tpv",
                "tune",
                "--train",
                str(place / "reviews.csv"),
                "--text",
                "review",
                "--label",
                "stars",
                "--template",
                "sentence: {review}",
                "--tokens",
                "5",
                "--steps",
                "80",
                "--batch-size",
                "16",
                "--max-input-length",
                "64",
                "--out",
                str(place / "stars"),
                "--device",
                "cpu",
            ],
        )
        with pytest.raises(SystemExit) as end:
            tpv.cli.main()
    assert not end.value.code
    return place / "stars"


def python_answers(folder, backbone, rows):
    """What the Python interface says of the same rows."""
    tuned = Tuned.load(folder)
    return tpv.predict(
        backbone,
        tuned.task,
        tuned.prompt,
        [f"sentence: {row['review']}" for row in rows],
        max_input_length=64,
        calibrator=tuned.about.calibrator,
    )


def test_texts_need_nothing_else(folder, run, backbone):
    texts = ["the plot is warm", "the plot is weak"]
    code, out, err = run("predict", folder, *texts, "--json", "--device", "cpu")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    table = python_answers(folder, backbone, [{"review": text} for text in texts])
    for name in ("source", "predicted", "said"):
        assert [row[name] for row in rows] == table[name].to_pylist()
    assert [row["probability"] for row in rows] == pytest.approx(table["probability"].to_pylist())
    code, out, _ = run("predict", folder, *texts, "--device", "cpu")
    assert out.splitlines()[0].startswith(f"{rows[0]['predicted']}\t{rows[0]['probability']:.3f}\tsentence: the plot")


def test_the_folder_says_what_it_was_tuned_with(folder, backbone):
    tuned = Tuned.load(folder)
    assert tuned.task.spec.template == "sentence: {review}"
    assert tuned.task.labels == ("no", "yes")
    assert tuned.about.max_input_length == 64
    assert tuned.about.model.name == "mini"
    task = tpv.load_task(folder.parent / "reviews.csv", text="review", label="stars", template="sentence: {review}")
    again = tpv.calibrate(backbone, task, tuned.prompt, max_input_length=64)
    assert tuned.about.calibrator.temperature == pytest.approx(again.temperature, rel=1e-4)
    assert "reviews.csv" not in (folder / "task.toml").read_text()


def test_it_scores_new_rows(folder, run, backbone):
    rows = reviews(24, 400)
    file = write_csv(folder.parent / "new_rows.csv", rows)
    code, out, err = run("evaluate", folder, "--test", file, "--device", "cpu")
    assert code == 0, err
    right = [
        a == row["stars"]
        for a, row in zip(python_answers(folder, backbone, rows)["predicted"].to_pylist(), rows, strict=True)
    ]
    assert f"{sum(right) / len(right):.3f}" in out
    code, _, err = run("evaluate", folder, "--device", "cpu")
    assert (code, "its rows are your own" in err) == (2, True)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("into", [".csv", ".jsonl", ".parquet"])
def test_files_in_files_out(folder, run, backbone, tmp_path, suffix, into, monkeypatch):
    monkeypatch.setattr(label_files, "CHUNK", 7)
    rows = [{"id": str(i), "review": row["review"], "note": "naïve, x"} for i, row in enumerate(reviews(20))]
    rows[4]["review"] = " "
    source = tmp_path / f"new{suffix}"
    if suffix == ".parquet":
        rows = [row | {"id": int(row["id"])} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows), source)
    elif suffix == ".csv":
        write_csv(source, rows)
    elif suffix == ".tsv":
        source.write_text("\n".join(["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]) + "\n")
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        source.write_bytes(__import__("gzip").compress(lines) if suffix.endswith("gz") else lines)
    target = tmp_path / f"labelled{into}"
    code, out, err = run("predict", folder, "--input", source, "--output", target, "--device", "cpu")
    assert (code, out) == (0, ""), err
    assert "labelled 19 of 20 rows" in err
    assert "1 row has no text and got no answer" in err
    if into == ".csv":
        found = list(csv.DictReader(io.StringIO(target.read_text())))
        rows = [{name: str(value) for name, value in row.items()} for row in rows]
    elif into == ".parquet":
        found = pq.read_table(target).to_pylist()
    else:
        found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    assert list(found[0]) == ["id", "review", "note", "label", "probability"]
    filled = [row for row in found if row["review"].strip()]
    table = python_answers(folder, backbone, filled)
    assert [row["label"] for row in filled] == table["predicted"].to_pylist()
    assert [float(row["probability"]) for row in filled] == pytest.approx(table["probability"].to_pylist(), abs=1e-5)
    assert found[4]["label"] in (None, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name, source.name]


def test_an_interrupted_file_is_resumed(folder, run, tmp_path, monkeypatch):
    monkeypatch.setattr(label_files, "CHUNK", 5)
    source = write_csv(tmp_path / "new.csv", reviews(23))
    whole = tmp_path / "whole.csv"
    assert run("predict", folder, "-i", source, "--output", whole, "--device", "cpu")[0] == 0
    target, calls = tmp_path / "out.csv", []
    plain = label_files._answered

    def broken(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(label_files, "_answered", broken)
    assert run("predict", folder, "-i", source, "--output", target, "--device", "cpu")[0] == 130
    assert not target.exists()
    monkeypatch.setattr(label_files, "_answered", plain)
    code, _, err = run("predict", folder, "-i", source, "--output", target, "--device", "cpu")
    assert (code, "10 of them before" in err) == (0, True), err
    assert target.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))
    # other options are other work: nothing of an interrupted call is taken for it
    calls.clear()
    monkeypatch.setattr(label_files, "_answered", broken)
    run("predict", folder, "-i", source, "--output", target, "--overwrite", "--device", "cpu")
    monkeypatch.setattr(label_files, "_answered", plain)
    code, _, err = run(
        "predict",
        folder,
        "-i",
        source,
        "--output",
        target,
        "--normalize",
        "none",
        "--max-input-length",
        9,
        "--device",
        "cpu",
    )
    assert (code, "of them before" in err) == (0, False), err


def test_a_file_that_is_there_is_not_replaced_unasked(folder, run, tmp_path):
    source, target = write_csv(tmp_path / "new.csv", reviews(3)), tmp_path / "mine.csv"
    target.write_text("mine")
    code, _, err = run("predict", folder, "-i", source, "--output", target, "--device", "cpu")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine.csv exists; choose another name, or add --overwrite" in err
    assert target.read_text() == "mine"
    code, _, err = run("predict", folder, "-i", source, "--output", target, "--overwrite", "--device", "cpu")
    assert (code, f"wrote {target}: labelled 3 of 3 rows" in err) == (0, True), err
    assert target.read_text().startswith("review")


def test_streams(folder, run, tmp_path, monkeypatch):
    class Stream:
        def __init__(self, content=b""):
            self.buffer = io.BytesIO(content)

    lines = "".join(json.dumps(row) + "\n" for row in reviews(6)).encode()
    monkeypatch.setattr(sys, "stdin", Stream(lines))
    target = tmp_path / "out.jsonl"
    args = ["predict", folder, "--input", "-", "--device", "cpu"]
    code, _, err = run(*args, "--output", target, "--format", "jsonl")
    assert code == 0, err
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["review"] for row in found] == [row["review"] for row in reviews(6)]
    code, _, err = run(*args, "--output", target, "--overwrite")
    assert (code, "format of standard input; expected --format csv, tsv or jsonl" in err) == (2, True)


def test_bad_files_are_one_line(folder, run, tmp_path):
    rows = reviews(3)
    source = write_csv(tmp_path / "new.csv", rows)
    cases = [
        (["-i", source], "expected both --input and --output"),
        (["-i", source, "--output", source], "another file than --input"),
        (["-i", source, "--output", tmp_path / "x.json"], "expected .csv, .tsv"),
        (["-i", source, "--output", tmp_path / "x.xlsx"], "got a spreadsheet"),
        (["-i", tmp_path / "none.csv", "--output", tmp_path / "x.csv"], "none.csv does not exist"),
        (["-i", source, "--output", tmp_path / "x.csv", "--label-column", "stars"], "has a column 'stars' already"),
        (["-i", source, "--output", tmp_path / "x.csv", "--text", "revue"], "no text column 'revue'.*did you mean"),
        (["-i", source, "--output", tmp_path / "x.csv", "--text", "a", "--text", "b"], "--text; expected 1"),
        (["-i", source, "--output", tmp_path / "x.csv", "--labels", "a,b"], "knows its task"),
    ]
    import re

    for arguments, words in cases:
        code, _, err = run("predict", folder, *arguments, "--device", "cpu")
        assert code == 2, err
        assert re.search(words, err), err
        assert err.count("\n") == 1, err
    lists = tmp_path / "lists.jsonl"
    lists.write_text(json.dumps({"review": ["a"]}) + "\n")
    code, _, err = run("predict", folder, "-i", lists, "--output", tmp_path / "x.csv", "--device", "cpu")
    assert (code, "row 1: column 'review' is not text; got a list" in err) == (2, True)
    assert not (tmp_path / "x.csv").exists()


def test_a_folder_of_0_1_is_used_by_its_prompt_file(folder, run, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "prompt.safetensors").write_bytes((folder / "prompt.safetensors").read_bytes())
    code, _, err = run("predict", old, "a text")
    assert (code, "only prompt.safetensors; give the prompt file itself" in err) == (2, True), err
    code, out, err = run(
        "predict", old / "prompt.safetensors", "--labels", "no,yes", "sentence: a text", "--device", "cpu"
    )
    assert code == 0, err
    assert out.split("\t")[0] in ("no", "yes")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("[tuned]\nmax_input_length = 0", "max_input_length"),
        ('labels = ["no", "maybe"]\n#', "calibrator|label"),
        ("[tuned.model]\nname = 3\n#", "name"),
    ],
)
def test_a_damaged_task_file_is_refused(folder, run, tmp_path, change, words):
    text = (folder / "task.toml").read_text()
    key = change.split(" =")[0].split("\n")[-1] if change.startswith("[") else "labels"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "prompt.safetensors").write_bytes((folder / "prompt.safetensors").read_bytes())
    import re

    line = change.split("\n")[-1] if change.startswith("[") else change
    if key == "labels":
        new = re.sub(r"labels = \[\n.*?\]", 'labels = ["no", "maybe"]', text, count=1, flags=re.S)
    else:
        section = change.split("\n")[0] if change.startswith("[tuned.model]") else "[tuned]"
        body = line.removesuffix("#") if not line.startswith("#") else change.split("\n")[1]
        new = re.sub(rf"({re.escape(section)}\n(?:.*\n)*?){key} = .*", rf"\g<1>{body}", text, count=1)
    assert new != text
    (damaged / "task.toml").write_text(new)
    code, _, err = run("predict", damaged, "a text")
    assert code == 2, err
    assert re.search(words, err), err
