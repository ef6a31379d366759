"""Own data from Python: frames and data sets give what the same rows in a file give."""

import subprocess
import sys
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tpv

SPLITS = ("train", "validation", "test")
ROWS = [{"review": f'text {i}, "with" a comma', "stars": i % 3 + 1, "other": i / 2} for i in range(40)]
HOW = {"text": "review", "label": "stars"}


def rows_of(task):
    """All but the ids, which name the file."""
    return {split: [(e.source, e.target, e.label) for e in task.examples(split)] for split in SPLITS}


def numbers(task):
    return {split: [e.id.split(":")[1] for e in task.examples(split)] for split in SPLITS}


@pytest.fixture
def from_csv(tmp_path):
    def load(rows=ROWS, **how):
        pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
        return tpv.load_task(tmp_path / "train.csv", **(HOW | how))

    return load


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"seed": 3},
        {"labels": ["1", "2", "3"]},
        {"template": "so: {review}", "text": None},
        {"text": ["review", "other"]},
    ],
)
def test_a_frame_a_data_set_and_a_file_of_the_same_rows_are_one_task(from_csv, how):
    expected = from_csv(**how)
    frame = pd.DataFrame(ROWS)
    for data in (
        frame,
        frame.set_index("stars", drop=False),
        datasets.Dataset.from_list(ROWS),
        datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)),
        {"train": frame},
    ):
        task = tpv.load_task(data, **(HOW | how))
        assert rows_of(task) == rows_of(expected)
        assert numbers(task) == numbers(expected)
        assert task.labels == expected.labels == ("1", "2", "3")
        assert task.spec.template == expected.spec.template
        assert task.name == "data"
        assert task.origin == {"memory": "rows given in Python"}
        assert task.examples("train")[0].id.startswith("train:")


cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.tuples(cell, st.sampled_from(["bad", " good", "1", "2.0"])), min_size=12, max_size=20))
def test_any_text_comes_through_as_from_a_file(tmp_path, pairs):
    if len({label.strip() for _, label in pairs}) < 2:
        pairs = [*pairs, ("x", "bad"), ("y", "good")]
    frame = pd.DataFrame(pairs, columns=["text", "label"])
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert rows_of(tpv.load_task(frame)) == rows_of(tpv.load_task(tmp_path / "rows.csv"))


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float32", "float64", "string", "category", "object"])
def test_labels_of_any_type_are_the_same_words(from_csv, dtype):
    frame = pd.DataFrame(ROWS)
    frame["stars"] = frame["stars"].astype(dtype)
    task = tpv.load_task(frame, **HOW)
    assert task.labels == ("1", "2", "3")
    assert rows_of(task) == rows_of(from_csv())


def class_rows(ids, names=("low", "mid", "high")):
    features = datasets.Features({"review": datasets.Value("string"), "stars": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"review": [f"r{i}" for i in range(len(ids))], "stars": ids}, features)


def test_a_class_label_gives_the_label_words():
    task = tpv.load_task(class_rows([2, 0, 1] * 10), label="stars")
    assert task.labels == ("low", "mid", "high")
    every = [e for split in SPLITS for e in task.examples(split)]
    assert all(e.target == ["high", "low", "mid"][int(e.source.removeprefix("review: r")) % 3] for e in every)
    digits = tpv.load_task(class_rows([2, 0, 1] * 10, ("1", "2", "3")), label="stars")  # ids are not taken for words
    assert all(e.target == ["3", "1", "2"][int(e.source[9:]) % 3] for split in SPLITS for e in digits.examples(split))
    mine = tpv.load_task(class_rows([2, 0, 1] * 10), label="stars", labels=["2", "1", "0"])
    assert all(e.target == ["0", "2", "1"][int(e.source[9:]) % 3] for split in SPLITS for e in mine.examples(split))
    with pytest.raises(tpv.TpvError, match=r"classes of 'stars'; expected 3, for \['low', 'mid', 'high'\]; got \['a'"):
        tpv.load_task(class_rows([0, 1]), label="stars", labels=["a", "b"])


def test_every_split_may_come_from_elsewhere(tmp_path):
    frame = pd.DataFrame(ROWS)
    frame[:5].to_csv(tmp_path / "few.csv", index=False)
    whole = {"train": frame, "validation": datasets.Dataset.from_list(ROWS[:7]), "test": frame[:9]}
    sizes = {"train": 40, "validation": 7, "test": 9}
    for changes, expected in (
        ({}, sizes),
        ({"test": frame[:3]}, sizes | {"test": 3}),
        ({"validation": tmp_path / "few.csv"}, sizes | {"validation": 5}),
    ):
        task = tpv.load_task(whole, **HOW, **changes)
        assert {split: len(rows) for split, rows in task.splits.items()} == expected
    task = tpv.load_task(tmp_path / "few.csv", **HOW, test=frame[:3], task_name="mine")
    assert (task.name, len(task.examples("test")), task.examples("test")[0].id) == ("mine", 3, "test:0")


def test_a_frame_can_be_tuned_on_and_scored(backbone):
    rows = [
        {"text": f"the plot is {word}.", "label": label} for word, label in (("good", "positive"), ("bad", "negative"))
    ]
    task = tpv.load_task(pd.DataFrame(rows * 20))
    prompt = tpv.fit(backbone, task, tpv.SoftPrompt.sample(backbone, 2), tpv.Recipe(steps=1, select="last"))
    assert tpv.evaluate(backbone, task, prompt).n == 4
    assert set(prompt.terms) == {"data"}


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT, np.float32("nan"), ""])
def test_a_row_without_a_label_is_refused_by_its_number(from_csv, nothing):
    rows = [{"review": f"r{i}", "stars": ["a", "b"][i % 2]} for i in range(12)]
    rows[7]["stars"] = nothing
    words = r"row 8: label '' is not one of the task's.*fill in or drop rows without a label"
    with pytest.raises(tpv.TpvError, match=rf"train data {words}"):
        tpv.load_task(pd.DataFrame(rows), label="stars")
    with pytest.raises(tpv.TpvError, match=rf"train\.csv {words}"):
        from_csv(rows, text=None)


def test_classes_without_a_label_are_refused():
    for nothing in (-1, None):
        with pytest.raises(tpv.TpvError, match="train data row 4: label '' is not one of"):
            tpv.load_task(class_rows([0, 1, 2, nothing, 0]), label="stars")


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, "  "])
def test_a_row_without_a_text_is_refused_by_its_number(nothing):
    frame = pd.DataFrame({"text": ["a", nothing, "b"] * 4, "label": ["x", "y", "y"] * 4})
    with pytest.raises(tpv.TpvError, match="train data row 2: the text is empty"):
        tpv.load_task(frame)


@pytest.mark.parametrize(
    ("data", "how", "words"),
    [
        (42, {}, "a task to load; expected a name, a path, a pandas DataFrame, .*; got int"),
        (pd.DataFrame(ROWS)["review"], {}, "got Series"),
        (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), {}, "got IterableDataset"),
        ({"train": 42}, {}, "train data; expected a pandas DataFrame or a datasets.Dataset; got int"),
        ({"train": {"train": pd.DataFrame(ROWS)}}, {}, "got dict"),
        ({"test": pd.DataFrame(ROWS)}, {}, r"no training split; expected one called 'train'; got \['test'\]"),
        (
            {"train": pd.DataFrame(ROWS), "tests": pd.DataFrame(ROWS)},
            {},
            "split 'tests' of the data; did you mean 'test'",
        ),
        (pd.DataFrame(ROWS)[:0], {}, "train data has no rows"),
        (pd.DataFrame(ROWS), {"label": "star"}, "train data has no label column 'star'.*did you mean 'stars'"),
        (pd.DataFrame(ROWS), {"text": None}, "which columns of train data are the input"),
        (pd.DataFrame(ROWS), {"text": "reviews"}, "no text column 'reviews'"),
        (
            {"train": pd.DataFrame(ROWS), "test": pd.DataFrame({"review": ["a"], "stars": [9]})},
            {},
            "test data row 1: label '9'",
        ),
        (pd.DataFrame([[1, 2, 3]], columns=["stars", "review", "review"]), {}, "columns of the same name"),
        (pd.DataFrame({"review": [b"a", b"b"], "stars": [1, 2]}), {}, "row 1: column 'review' is not text; got bytes"),
        (
            pd.DataFrame({"review": ["a", "\ud800"], "stars": [1, 2]}, dtype=object),
            {},
            "row 2: column 'review' is not UTF-8",
        ),
        (
            pd.DataFrame(ROWS),
            {"data_dir": "/x"},
            "task 'DataFrame' is not one of the hub's; got options for those: data_dir",
        ),
        (
            pd.DataFrame(ROWS),
            {"style": "instruct"},
            "style 'instruct' for 'DataFrame'; expected a hub task or a task file",
        ),
    ],
)
def test_what_is_no_data_is_refused_in_one_line(data, how, words):
    with pytest.raises(tpv.TpvError, match=words) as error:
        tpv.load_task(data, **(HOW | how))
    assert "\n" not in str(error.value)


def test_a_subclass_that_looks_like_a_frame_is_one(from_csv):
    frame = pd.DataFrame(ROWS)
    alike = SimpleNamespace(columns=frame.columns, itertuples=frame.itertuples)
    assert rows_of(tpv.load_task(alike, **HOW)) == rows_of(from_csv())


def test_neither_library_is_imported_before_it_is_needed(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "a,0\nb,1\n" * 9)
    code = f"import sys, tpv\ntpv.load_task({str(tmp_path / 'x.csv')!r})\nsys.exit(bool({{'pandas', 'datasets'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
