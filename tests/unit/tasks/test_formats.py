"""Files that are not what their name says, and rows that would quietly spoil a score."""

import gzip
import json
import warnings

import pandas as pd
import pyarrow as pa
import pytest

import tpv
from tpv.tasks.formats import open_rows, read_all

ROWS = [{"text": f"a naïve café, row {i}", "label": ["no", "yes"][i % 2]} for i in range(40)]
LINES = [f'"{row["text"]}",{row["label"]}' for row in ROWS]
CSV = "\n".join(["text,label", *LINES]) + "\n"


def loaded(path, **how):
    """The rows of a file that is training, validation and test split, and what was warned of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read_all(path, **how)
    return rows, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_encodings(tmp_path, encoding, suffix):
    path = tmp_path / f"rows{suffix}"
    whole = {
        ".csv": CSV,
        ".tsv": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS),
        ".jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
        ".json": json.dumps(ROWS, ensure_ascii=False, indent=1),
    }[suffix]
    path.write_bytes(whole.encode(encoding))
    if encoding.startswith("utf-8"):
        assert loaded(path) == (ROWS, [])
        return
    named = r"UTF-16.*--encoding utf-16" if "16" in encoding else r"Latin-1.*--encoding latin-1"
    with pytest.raises(tpv.TpvError, match=rf"rows\{suffix} is not UTF-8; got .*{named}"):
        tpv.load_task(path)
    assert loaded(path, encoding=encoding)[0] == ROWS
    assert tpv.load_task(path, encoding=encoding).labels == ("no", "yes")


def test_an_unknown_encoding_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text(CSV)
    with pytest.raises(tpv.TpvError, match=r"encoding; expected utf-8, .*; got utf8000"):
        tpv.load_task(tmp_path / "rows.csv", encoding="utf8000")


def test_latin_1_far_into_a_file_is_named_too(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"text,label\n" + b"plain words,no\n" * 20_000 + b"caf\xe9,yes\n")
    with pytest.raises(tpv.TpvError, match=r"rows\.csv is not UTF-8; .*--encoding latin-1"):
        tpv.load_task(tmp_path / "rows.csv")


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_read_and_said(tmp_path, mark, word):
    path = tmp_path / "rows.csv"
    path.write_text("text" + mark + "label\n" + "".join(f"words, {i}{mark}{['no', 'yes'][i % 2]}\n" for i in range(30)))
    rows, said = loaded(path)
    assert rows[3] == {"text": "words, 3", "label": "yes"}
    assert len(said) == 1
    assert f"is separated by {word}, not commas, and is read so" in said[0]


def test_a_json_array_and_lines_under_its_name(tmp_path):
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    (tmp_path / "lines.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert loaded(tmp_path / "array.json") == loaded(tmp_path / "lines.json") == (ROWS, [])
    (tmp_path / "bad.json").write_text("[1, 2]")
    with pytest.raises(tpv.TpvError, match=r"bad\.json row 1; expected a JSON object; got int"):
        tpv.load_task(tmp_path / "bad.json")


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.xls", "rows.txt", "rows.zip", "rows.pkl"])
def test_other_kinds_are_refused_by_kind(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(tpv.TpvError, match=rf"data file .*{name}; expected a name ending in .csv.*; got (a|plain|an) "):
        tpv.load_task(tmp_path / name)


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, ("a",)])
def test_a_list_or_object_is_not_text(tmp_path, value):
    rows = [*ROWS[:5], {"text": value, "label": "no"}, *ROWS[6:]]
    kind = "object" if isinstance(value, dict) else "list"
    with pytest.raises(tpv.TpvError, match=rf"row 6: column 'text' is not text; got a {kind}; make it one text"):
        tpv.load_task(pd.DataFrame(rows))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(tpv.TpvError, match=rf"rows.jsonl row 6: column 'text' is not text; got a {kind}"):
        tpv.load_task(tmp_path / "rows.jsonl")


def test_labels_that_look_alike_are_named():
    rows = [{"text": f"t{i}", "label": ["Good", "good", "bad", "b ad", "other"][i % 5]} for i in range(50)]
    with pytest.warns(tpv.TpvWarning, match="differ only in case or spaces: 'Good' and 'good'; 'b ad' and 'bad'"):
        tpv.load_task(pd.DataFrame(rows))


def test_a_rare_label_that_is_spelled_almost_like_another_is_named():
    labels = ["positive", "negative"] * 20 + ["postive", "neutral"]
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    with pytest.warns(tpv.TpvWarning) as caught:
        tpv.load_task(pd.DataFrame(rows))
    said = [str(one.message) for one in caught if "spelled" in str(one.message)]
    assert said == ["label word 'postive' of task 'data' (1 row) is spelled almost like 'positive'; is it a typo?"]


def test_a_text_with_two_labels_and_texts_in_two_splits_are_counted():
    rows = [{"text": f"t{i % 38}", "label": ["no", "yes"][(i // 38 + i) % 2]} for i in range(40)]
    with pytest.warns(tpv.TpvWarning, match=r"2 of 38 texts of task 'data' \(train\) have two labels or more"):
        tpv.load_task(pd.DataFrame(rows))
    test = pd.DataFrame([{"text": f"t{i}", "label": "no"} for i in (2, 4, 99)])
    train = pd.DataFrame([{"text": f"t{i}", "label": ["no", "yes"][i % 2]} for i in range(40)])
    with pytest.warns(tpv.TpvWarning, match=r"2 of 3 texts of task 'data' \(test\) are also in train"):
        tpv.load_task(train, test=test, validation=pd.DataFrame([{"text": "v", "label": "no"}]))


def test_copies_of_a_text_stay_on_one_side():
    rows = [{"text": f"t{i // 3}", "label": ["no", "yes"][i // 3 % 2]} for i in range(300)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = tpv.load_task(pd.DataFrame(rows))
    texts = [{row.source for row in task.examples(split)} for split in ("train", "validation", "test")]
    assert not (texts[0] & texts[1])
    assert not (texts[0] & texts[2])
    assert not (texts[1] & texts[2])
    assert sum(map(len, texts)) == 100
    assert sum(len(task.examples(split)) for split in ("train", "validation", "test")) == 300


def test_rows_come_in_chunks(tmp_path):
    import pyarrow.parquet as pq

    table = pa.table({"text": [row["text"] for row in ROWS], "n": range(len(ROWS))})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    (tmp_path / "rows.csv").write_text(CSV)
    for name, kind in (("rows.parquet", "parquet"), ("rows.jsonl.gz", "jsonl"), ("rows.csv", "csv")):
        with (tmp_path / name).open("rb") as file:
            found = open_rows(file, kind, name, size=7, name=name)
            chunks = list(found.chunks)
        assert [len(chunk) for chunk in chunks] == [7, 7, 7, 7, 7, 5], name
        assert [row["text"] for chunk in chunks for row in chunk] == [row["text"] for row in ROWS]
        assert found.names[0] == "text"
