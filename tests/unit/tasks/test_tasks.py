"""Tasks: names, rows from files, splits, few-shot samples."""

import gzip
import json
from collections import Counter
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED

import tpv
from tpv.tasks import Example, task_specs
from tpv.tasks.splits import paper_splits
from tpv.tasks.task import stratified_sample

ROWS = [{"text": f"text {i}, with a comma", "label": ["bad", "good"][i % 2], "other": i} for i in range(40)]


def write(path, rows):
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.name.endswith((".csv", ".tsv")):
        mark, quote = ("\t", "") if path.suffix == ".tsv" else (",", '"')
        lines = [mark.join(f"{quote}{value}{quote}" for value in row.values()) for row in rows]
        path.write_text("\n".join([mark.join(rows[0]), *lines]) + "\n")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_names_and_hints():
    assert tpv.load_task("mini/sst2").labels == ("negative", "positive")
    with pytest.raises(tpv.TpvError, match=r"unknown task 'mini/sst'.*did you mean 'mini/sst5' or 'mini/sst2'"):
        tpv.load_task("mini/sst")
    with pytest.raises(tpv.TpvError, match="says itself what its data is; got options for data files: text"):
        tpv.load_task("mini/sst2", text="review")
    assert all(spec.name == name for name, spec in task_specs().items())


def test_examples_have_source_and_target():
    example = tpv.load_task("mini/mnli").examples("test")[0]
    assert example.source.startswith("premise: ")
    assert " hypothesis: " in example.source
    assert example.target == tpv.load_task("mini/mnli").labels[example.label]
    with pytest.raises(tpv.TpvError, match="unknown split 'dev'"):
        tpv.load_task("mini/mnli").examples("dev")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_gives_the_same_task(tmp_path, suffix):
    task = tpv.load_task(write(tmp_path / f"reviews{suffix}", ROWS), text="text")
    assert task.name == "reviews"
    assert task.labels == ("bad", "good")
    everything = [example for split in ("train", "validation", "test") for example in task.examples(split)]
    assert {example.source for example in everything} == {f"text: text {i}, with a comma" for i in range(40)}
    assert len(everything) == 40
    assert len(task.examples("test")) == len(task.examples("validation")) == 4
    assert all(ROWS[int(e.id.split(":")[1])]["label"] == e.target for e in everything)


def test_label_ids_words_and_numbers(tmp_path):
    ids = [{"review": "a", "stars": i % 3} for i in range(30)]
    path = write(tmp_path / "ids.jsonl", ids)
    assert tpv.load_task(path, label="stars").labels == ("0", "1", "2")
    named = tpv.load_task(path, label="stars", labels=["low", "mid", "high"])
    assert {e.target for e in named.examples("train")} == {"low", "mid", "high"}
    stars = write(tmp_path / "stars.csv", [{"t": "x", "label": n} for n in (1, 2, 5, 10, 2, 1)])
    assert tpv.load_task(stars).labels == ("1", "2", "5", "10")
    assert [e.label for e in tpv.load_task(stars, test=stars).examples("test")] == [0, 1, 2, 3, 1, 0]


def test_a_folder_and_named_splits(tmp_path):
    for split in ("train", "validation", "test"):
        write(tmp_path / f"{split}.jsonl", ROWS[:10])
    task = tpv.load_task(tmp_path, text=["text", "other"])
    assert [len(task.examples(split)) for split in ("train", "validation", "test")] == [10, 10, 10]
    assert task.examples("test")[3].source == "text: text 3, with a comma other: 3"
    write(tmp_path / "train.csv", ROWS[:10])
    with pytest.raises(tpv.TpvError, match="several train files"):
        tpv.load_task(tmp_path)


def test_a_task_file_with_its_data_beside_it(tmp_path):
    write(tmp_path / "rows.csv", ROWS)
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nfields = ["text"]\ntemplate = "review: {text}"\nlabels = ["bad", "good"]\n'
        '[source]\nkind = "files"\ntrain = "rows.csv"\ntest = "rows.csv"\n'
    )
    task = tpv.load_task(tmp_path / "mine.toml")
    assert task.examples("test")[1].source == "review: text 1, with a comma"
    assert len(task.examples("train")) == 36


def test_a_task_file_may_have_an_instruction_too(tmp_path):
    write(tmp_path / "rows.csv", ROWS)
    text = (
        'name = "mine"\nfields = ["text"]\ntemplate = "review: {text}"\nlabels = ["bad", "good"]\n'
        'instruct = "Say bad or good: {text}"\n[source]\nkind = "files"\ntrain = "rows.csv"\ntest = "rows.csv"\n'
    )
    (tmp_path / "mine.toml").write_text(text)
    task = tpv.load_task(tmp_path / "mine.toml", style="instruct")
    assert task.examples("test")[1].source == "Say bad or good: text 1, with a comma"
    assert tpv.load_task(tmp_path / "mine.toml").examples("test")[1].source == "review: text 1, with a comma"
    (tmp_path / "none.toml").write_text(text.replace('instruct = "Say bad or good: {text}"\n', ""))
    for name in ("mini/sst2", tmp_path / "none.toml"):
        with pytest.raises(tpv.TpvError, match=r"has no template of style 'instruct'.*use style 'text'"):
            tpv.load_task(name, style="instruct")
    with pytest.raises(tpv.TpvError, match="for own data, write the instruction as the template"):
        tpv.load_task(tmp_path / "rows.csv", text="text", style="instruct")
    (tmp_path / "mine.toml").write_text(text.replace("good: {text}", "good: {txt}"))
    with pytest.raises(tpv.TpvError, match=r"names \['txt'\], fields are \['text'\]"):
        tpv.load_task(tmp_path / "mine.toml")


def test_options_for_data_files_are_not_ignored_with_a_task_file(tmp_path):
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(tpv.TpvError, match="got options for data files: labels, test"):
        tpv.load_task(tmp_path / "mine.toml", test="x.csv", labels=["b", "a"])


def test_texts_and_labels_stay_the_text_they_are(tmp_path):
    rows = "".join(f"{i:04},{['true', 'false'][i % 2]}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("text,label\n" + rows)
    task = tpv.load_task(tmp_path / "t.csv", labels=["false", "true"])
    assert "text: 0003" in {e.source for split in ("train", "validation", "test") for e in task.examples(split)}
    assert {e.target for e in task.examples("train")} == {"false", "true"}


def test_quotes_in_a_tsv_are_just_characters(tmp_path):
    rows = [f'he said "{i}\t{i % 2}' for i in range(20)]
    (tmp_path / "t.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    task = tpv.load_task(tmp_path / "t.tsv")
    assert sum(len(task.examples(split)) for split in ("train", "validation", "test")) == 20


def test_odd_column_names_are_only_names(tmp_path):
    (tmp_path / "x.csv").write_text(",user.text,0,label\n" + "".join(f"{i},t{i},z,{'ab'[i % 2]}\n" for i in range(20)))
    with pytest.raises(tpv.TpvError, match=r"which columns.*\['', 'user.text', '0'\] beside 'label'"):
        tpv.load_task(tmp_path / "x.csv")
    with pytest.raises(tpv.TpvError, match="both the input and its answer"):
        tpv.load_task(tmp_path / "x.csv", text="label")
    assert tpv.load_task(tmp_path / "x.csv", template="so: {user.text}").examples("train")[0].source.startswith("so: t")
    task = tpv.load_task(tmp_path / "x.csv", text=["", "user.text", "0"])
    assert task.examples("train")[0].source.startswith(": ")
    assert "user.text: t" in task.examples("train")[0].source
    only = tpv.load_task(tmp_path / "x.csv", text="user.text", template="{{{user.text}}}")
    assert only.examples("train")[0].source.startswith("{t")
    with pytest.raises(tpv.TpvError, match=r"plain .field.s only"):
        tpv.load_task(tmp_path / "x.csv", text="0", template="{0:d}")


def test_names_of_tasks_from_files(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "train.csv", ROWS)
    assert tpv.load_task(tmp_path / "x" / "train.csv", text="text").name == "x"
    assert tpv.load_task(tmp_path / "y", text="text").name == "y"
    assert tpv.load_task(tmp_path / "y", task_name="mine", text="text").name == "mine"
    assert tpv.load_task(write(tmp_path / "a.v1.csv", ROWS), text="text").name == "a.v1"


def test_labels_are_told_apart_after_stripping(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "a,b\nc, b\nd,-1\ne,2\nf,10\n" * 4)
    assert tpv.load_task(tmp_path / "x.csv").labels == ("-1", "2", "10", "b")
    (tmp_path / "y.csv").write_text("text,label\n" + "a,0\nc,1.0\nd,0.0\ne,1\n" * 4)
    assert tpv.load_task(tmp_path / "y.csv").labels == ("0", "1")
    assert {e.target for e in tpv.load_task(tmp_path / "y.csv", labels=["no", "yes"]).examples("train")} == {
        "no",
        "yes",
    }


@pytest.mark.parametrize("size", [10_000, 10_001])
def test_the_papers_split_rule(size):
    """Appendix A: over 10,000 rows 1,000 become validation, validation becomes test; else validation is halved."""
    rows = {
        "train": [Example(f"t{i}", "", "a", 0) for i in range(size)],
        "validation": [Example(f"v{i}", "", "a", 0) for i in range(301)],
    }
    splits = paper_splits(rows, seed=0)
    if size > 10_000:
        assert [len(splits[s]) for s in ("train", "validation", "test")] == [size - 1000, 1000, 301]
        assert splits["test"] == rows["validation"]
        assert sorted(e.id for e in splits["train"] + splits["validation"]) == sorted(e.id for e in rows["train"])
    else:
        assert [len(splits[s]) for s in ("train", "validation", "test")] == [size, 150, 151]
        assert sorted(e.id for e in splits["validation"] + splits["test"]) == sorted(e.id for e in rows["validation"])
    assert splits == paper_splits(rows, seed=0) != paper_splits(rows, seed=1)
    with pytest.raises(tpv.TpvError, match="a labelled validation split"):
        paper_splits({"train": rows["train"]}, seed=0)


def test_a_task_file_may_use_a_generator_of_mini(tmp_path):
    text = '[source]\nkind = "generated"\ngenerator = "GEN"\n'
    head = 'name = "mine"\nfields = ["sentence"]\ntemplate = "{sentence} so:"\nlabels = ["no", "yes"]\n'
    (tmp_path / "g.toml").write_text(head + text.replace("GEN", "sst2"))
    assert tpv.load_task(tmp_path / "g.toml").examples("test")[0].source.endswith(" so:")
    (tmp_path / "g.toml").write_text(head + text.replace("GEN", "sst3"))
    with pytest.raises(tpv.TpvError, match="unknown generator 'sst3'"):
        tpv.load_task(tmp_path / "g.toml")
    (tmp_path / "g.toml").write_text(head + text.replace("GEN", "mnli"))
    with pytest.raises(tpv.TpvError, match="does not fit its generator"):
        tpv.load_task(tmp_path / "g.toml")


def test_mistakes_in_a_task_file_come_together(tmp_path):
    (tmp_path / "bad.toml").write_text('name = ""\nfields = ["text"]\ntemplate = "{txt}"\nlabels = ["a"]\ncolor = 1\n')
    with pytest.raises(tpv.TpvError, match=r"(?s)bad\.toml.*name.*labels.*source.*color"):
        tpv.load_task(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text(
        'name = "n"\nfields = ["text"]\ntemplate = "{txt}"\nlabels = ["a", "b"]\n[source]\nkind = "files"\n'
    )
    with pytest.raises(tpv.TpvError, match=r"template.*names \['txt'\], fields are \['text'\]"):
        tpv.load_task(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(tpv.TpvError, match="is not TOML"):
        tpv.load_task(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (ROWS, {"label": "labl"}, "no label column 'labl'.*did you mean 'label'"),
        (ROWS, {"text": "txt"}, "no text column 'txt'.*did you mean 'text'"),
        (ROWS, {"text": "text", "labels": ["bad", "fine"]}, r"row 2: label 'good' is not one of.*\['bad', 'fine'\]"),
        ([{"text": "a", "label": 3}] * 9, {"labels": ["x", "y"]}, "label '3' is not one of.*id from 0 to 1"),
        ([{"text": " ", "label": "a"}, {"text": "b", "label": "b"}] * 5, {}, "row 1: the text is empty"),
        ([{"text": "a", "label": "same"}] * 9, {}, "too few values.*same"),
        ([{"text": "a", "label": str(i)} for i in range(1500)], {}, "1500 distinct values"),
        (ROWS[:2], {"text": "text"}, "too few rows to hold out"),
        ([{"text": "a", "label": None}, *ROWS[:8]], {"text": "text", "labels": ["bad", "good"]}, "without a label"),
    ],
)
def test_data_that_does_not_fit_is_refused(tmp_path, rows, options, words):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(tpv.TpvError, match=words):
        tpv.load_task(path, **options)


def test_files_that_do_not_read_are_refused_by_name(tmp_path):
    cases = {
        "none.csv": None,
        "broken.jsonl": b"{not json\n",
        "broken.parquet": b"PAR1 no",
        "cut.jsonl.gz": b"\x1f\x8b\x08",
        "header.csv": b"t\xe9xt,label\na,b\n",
        "broken.jsonl.gz": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\xff" * 40,
        "latin.csv": b"text,label\ncaf\xe9,a\nth\xe9,b\n",
        "ragged.csv": b"a,label\n1,2,3,4\n",
        "binary.csv": b"\xff\xfe\x00",
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(tpv.TpvError, match=name):
            tpv.load_task(tmp_path / name)
    for name in ("empty.csv", "head.csv", "empty.jsonl"):
        (tmp_path / name).write_text("text,label\n" if name == "head.csv" else "")
        with pytest.raises(tpv.TpvError, match=name):
            tpv.load_task(tmp_path / name)
    with pytest.raises(tpv.TpvError, match="unknown task"):
        tpv.load_task(tmp_path / "data.tables")


def test_json_lines_are_objects_and_stay_what_they_are(tmp_path):
    path = tmp_path / "rows.jsonl"
    for line, found in (("null", "NoneType"), ("[1]", "list"), ("7", "int"), ('{"text"', "Expecting")):
        for place in (0, 1):  # a first line of null once ended the process
            lines = ['{"text": "a", "label": "x"}']
            path.write_text("\n".join([*lines * place, line, *lines]))
            with pytest.raises(tpv.TpvError, match=rf"rows\.jsonl.*line {place + 1}.*a JSON object; got {found}"):
                tpv.load_task(path)
    days = [f"2026-01-{day:02d}T00:00:00Z" for day in range(1, 31)]
    rows = [
        {"text": day, "label": number % 2} | ({"note": "now and then"} if number % 5 == 4 else {})
        for number, day in enumerate(days)
    ]
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)))
    task = tpv.load_task(path, template="{text}", validation=path, test=path)
    assert [example.source for example in task.examples("train")] == days


def test_an_empty_split_is_refused(tmp_path):
    write(tmp_path / "rows.csv", ROWS)
    (tmp_path / "t.toml").write_text(
        'name = "t"\nfields = ["text"]\ntemplate = "{text}"\nlabels = ["bad", "good"]\n'
        '[source]\nkind = "files"\ntest = "rows.csv"\n'
    )
    with pytest.raises(tpv.TpvError, match=r"split 'train' of task 't' is empty.*rows only in \['test'\]"):
        tpv.load_task(tmp_path / "t.toml").examples("train")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.data())
def test_few_shot_counts_are_proportional(labels, data):
    size = data.draw(st.integers(1, len(labels)))
    chosen = stratified_sample(labels, size, Random(data.draw(st.integers(0, 9))))
    assert len(set(chosen)) == len(chosen) == size
    total, drawn = Counter(labels), Counter(labels[i] for i in chosen)
    for label, count in total.items():
        assert abs(drawn[label] - size * count / len(labels)) < 1


def test_few_shot_is_decided_by_its_own_seed():
    task = tpv.load_task("mini/dbpedia")
    shots = task.few_shot(28, seed=1)
    assert len(shots.examples("train")) == 28
    assert shots.examples("test") == task.examples("test")
    assert shots.examples("train") == task.few_shot(28, seed=1).examples("train")
    assert shots.examples("train") != task.few_shot(28, seed=2).examples("train")
    assert shots.fingerprint != task.fingerprint
    for bad in (0, 2001, 1.5, True):
        with pytest.raises(tpv.TpvError, match="shots of task"):
            task.few_shot(bad, seed=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data folder, which is not here")
def test_real_data_loads(tmp_path):
    task = tpv.load_task(
        SHARED / "data" / "mnli", labels=["entailment", "neutral", "contradiction"], text=["premise", "hypothesis"]
    )
    assert [len(task.examples(split)) for split in ("train", "validation", "test")] == [12923, 1000, 2000]
    assert task.examples("test")[0].source.startswith("premise: ")
    trec = tpv.load_task(SHARED / "data" / "trec", text="text")
    assert len(trec.labels) == 6
