"""Files in, files out: nothing of a row is lost, whatever stands in it, and what a call left behind is trusted if whole."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tpv
from tpv.evaluation import label_file as module
from tpv.evaluation.label_file import Counts, Endpoint, label_file

ROWS = [{"text": f"row {i}", "id": [1, 1.5, "x", None, True][i % 5], "more": {"a": [i, None]}} for i in range(13)]


def answers(rows):
    return [{"answer": row["text"].upper(), "sure": 0.5} for row in rows]


def label(source, target, answer=answers, kind=None, stream=None, **more):
    ends = Endpoint.of(source, stream or io.BytesIO(), kind, "in"), Endpoint.of(target, io.BytesIO(), kind, "out")
    return label_file(*ends, {"text": "text"}, answer, {"answer": str, "sure": float}, key=1, **more)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """What writes rows as JSON lines; five are answered at a time."""
    monkeypatch.setattr(module, "CHUNK", 5)

    def write(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_values_of_every_kind_go_into_parquet_as_text(lines, tmp_path):
    assert label(lines(ROWS), tmp_path / "out.parquet") == Counts(13, 0, 0)
    for row, found in zip(ROWS, pq.read_table(tmp_path / "out.parquet").to_pylist(), strict=True):
        assert found["text"] == row["text"]
        assert found["id"] == (None if row["id"] is None else str(row["id"]))
        assert json.loads(found["more"]) == row["more"]
        assert (found["answer"], found["sure"]) == (row["text"].upper(), 0.5)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_comes_late_is_not_lost(suffix, lines, tmp_path):
    source = lines([*ROWS, {"text": "last", "late": 1}])
    with pytest.raises(tpv.TpvError, match=r"column 'late' is not in the first rows; write \.jsonl"):
        label(source, tmp_path / f"out{suffix}")
    label(source, tmp_path / "out.jsonl")
    last = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])
    assert last == {"text": "last", "late": 1, "answer": "LAST", "sure": 0.5}


def test_a_column_may_be_left_out_later(lines, tmp_path):
    label(lines([*ROWS, {"text": "last"}]), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[-1]["id"] is None


def test_half_a_character_stays_or_is_refused(lines, tmp_path):
    rows = [ROWS[0] | {"id": "half \ud800"}]
    label(lines(rows), tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["id"] == "half \ud800"
    for suffix in (".csv", ".tsv", ".parquet"):
        with pytest.raises(tpv.TpvError, match=r"a text that is not UTF-8; got half a character; write \.jsonl"):
            label(lines(rows), tmp_path / f"out{suffix}")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_two_columns_of_one_name_are_refused(suffix, tmp_path):
    mark = "," if suffix == ".csv" else "\t"
    (tmp_path / f"rows{suffix}").write_text(f"text{mark}id{mark}id\na{mark}1{mark}2\n")
    with pytest.raises(tpv.TpvError, match="has two columns 'id'; expected a name of its own for each"):
        label(tmp_path / f"rows{suffix}", tmp_path / "out.csv")


@pytest.mark.parametrize("encoding", ["hex", "rot13", "nonsense", ""])
def test_what_is_no_encoding_of_text_is_refused(encoding, lines, tmp_path):
    with pytest.raises(tpv.TpvError, match=r"^encoding; expected utf-8"):
        label(lines(ROWS), tmp_path / "out.jsonl", encoding=encoding)


def test_the_format_of_a_stream_is_not_that_of_a_file(tmp_path):
    content = b'{"text": "a"}\n{"text": "b"}\n'
    label(Path("-"), tmp_path / "out.csv", kind="jsonl", stream=io.BytesIO(content))
    assert (tmp_path / "out.csv").read_text() == "text,answer,sure\na,A,0.5\nb,B,0.5\n"


DAMAGES = {
    "nothing": (lambda part, note: None, 5),
    "part gone": (lambda part, note: part.unlink(), 0),
    "part cut": (lambda part, note: part.write_bytes(part.read_bytes()[:-3]), 0),
    "note gone": (lambda part, note: note.unlink(), 0),
    "note empty": (lambda part, note: note.write_text(""), 0),
    "note of another shape": (lambda part, note: note.write_text("[3]"), 0),
    "note of no number": (lambda part, note: note.write_text(note.read_text().replace("0", "1e999", 1)), 0),
    "note of another count": (lambda part, note: note.write_text(note.read_text().replace("0", "4", 1)), 0),
    "note no text": (lambda part, note: note.write_bytes(b"\xff\xfe"), 0),
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_damaged_parts_are_made_again(how, suffix, lines, tmp_path):
    source, calls = lines(ROWS), []
    label(source, tmp_path / f"whole{suffix}")

    def broken(rows):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answers(rows)

    target = tmp_path / f"out{suffix}"
    with pytest.raises(KeyboardInterrupt):
        label(source, target, broken)
    (stage,) = tmp_path.glob(".*.partial")
    damage, resumed = DAMAGES[how]
    damage(stage / "0000000", stage / "0000000.json")
    assert label(source, target) == Counts(13, 0, resumed)
    assert target.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not stage.exists()
