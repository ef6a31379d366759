"""The twelve tasks of the paper and others of GLUE: from local copies, and from data sets as `datasets` loads them."""

import gzip
import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import SHARED

import tpv
from tpv.tasks import split_sizes, task_specs, without_rows
from tpv.tasks.hub import _origin
from tpv.tasks.spec import GeneratedSource, HubSource, build_spec, template_fields

DATA = SHARED / "data"
SPLITS = ("train", "validation", "test")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data folder, which is not here")

INFERENCE, SENTIMENT = ["entailment", "neutral", "contradiction"], ["negative", "positive"]
# Per task, written down from the paper's notes, apart from the data files: label words in id order, the input made of a
# row, and how the first training row of the shared copy begins.
EXPECTED = {
    "mnli": SimpleNamespace(
        words=INFERENCE,
        source=lambda row: "mnli premise: " + row["premise"] + " hypothesis: " + row["hypothesis"],
        first="mnli premise: Eva was put under . . . pressure to purchase the car immediately. hypothesis: Eva was pressured to make a purchase.",
    ),
    "qnli": SimpleNamespace(
        words=["entailment", "not_entailment"],
        source=lambda row: "qnli question: " + row["question"] + " sentence: " + row["sentence"],
        first="qnli question: When was the coronation of Elizabeth as Queen? sentence: The ceremony in Westminster Abbey, ",
    ),
    "dbpedia_14": SimpleNamespace(
        words=[
            "Company",
            "Educational Institution",
            "Artist",
            "Athlete",
            "Office Holder",
            "Mean Of Transportation",
            "Building",
            "Natural Place",
            "Village",
            "Animal",
            "Plant",
            "Album",
            "Film",
            "Written Work",
        ],
        source=lambda row: (
            f"dbpedia What is the category for following text: title: {row['title']} content: {row['content']}"
        ),
        first="dbpedia What is the category for following text: title: Eutelesia variegata content: Eutelesia variegata is a moth ",
    ),
    "trec": SimpleNamespace(
        words=["Abbreviation", "Entity", "Description", "Person", "Location", "Quantity"],
        source=lambda row: "trec_coarse What is this question asking for: " + row["text"],
        first="trec_coarse What is this question asking for: Which thrilled taste buds first - Snickers or 3 Musketeers ?",
    ),
    "sst2": SimpleNamespace(
        words=SENTIMENT,
        source=lambda row: "sst2 sentence: " + row["sentence"],
        first="sst2 sentence: do anything as stomach-turning as the way adam sandler 's new movie rapes",
    ),
    "yelp_polarity": SimpleNamespace(
        words=SENTIMENT,
        source=lambda row: "yelp_polarity sentence: " + row["text"],
        first="yelp_polarity sentence: Point Brugge no longer represents solely a restaurant that has good food; ",
    ),
    "scitail": SimpleNamespace(
        words=["entailment", "neutral"],
        source=lambda row: "scitail premise: " + row["premise"] + " hypothesis: " + row["hypothesis"],
        first="scitail premise: Humans have only 23 pairs of chromosomes. hypothesis: Humans typically have 23 pairs pairs of chromosomes.",
    ),
    "snli": SimpleNamespace(
        words=INFERENCE,
        source=lambda row: "snli premise: " + row["premise"] + " hypothesis: " + row["hypothesis"],
        first="snli premise: A couple kissing on the train station platform. hypothesis: Two people are in a loving embrace.",
    ),
    "ag_news": SimpleNamespace(
        words=["World", "Sports", "Business", "Sci/Tech"],
        source=lambda row: "ag_news What is the category for following text: " + row["text"],
        first="ag_news What is the category for following text: Hibiscus Flowers Help Your Heart New research finds ",
    ),
    "yahoo_answers_topics": SimpleNamespace(
        words=[
            "Society",
            "Science",
            "Health",
            "Education",
            "Computers",
            "Sports",
            "Business",
            "Entertainment",
            "Family",
            "Politics",
        ],
        source=lambda row: (
            "yahoo What is the category for following text: title: " + row["question_title"] + " content:  answer: "
        ),
        first="yahoo What is the category for following text: title: if you speeding and got caught by a cop,what will you say to make cop let you go? content:  answer: ",
    ),
    "imdb": SimpleNamespace(
        words=SENTIMENT,
        source=lambda row: "imdb sentence: " + row["text"],
        first="imdb sentence: SUcks. That's all I got to say about this sorry excuse for a film. Sucks. Sucks. Sucks. ",
    ),
    "sst5": SimpleNamespace(
        words=["very negative", "negative", "neutral", "positive", "very positive"],
        source=lambda row: "sst5 sentence: " + row["text"],
        first="sst5 sentence: a beyond-lame satire , teddy bears ' picnic ranks among the most pitiful directing debuts by an esteemed writer-actor .",
    ),
}
# Other tasks of GLUE, with its own names for the labels.
OTHERS = {
    "rte": SimpleNamespace(
        words=["entailment", "not_entailment"],
        metric="exact_match",
        source=lambda row: "rte sentence1: " + row["sentence1"] + " sentence2: " + row["sentence2"],
        first="rte sentence1: Local health department officials were quoted as saying that the bridge over the Santa Barbara river, in southern Peru",
    ),
    "mrpc": SimpleNamespace(
        words=["not_equivalent", "equivalent"],
        metric="f1",
        source=lambda row: "mrpc sentence1: " + row["sentence1"] + " sentence2: " + row["sentence2"],
        first="mrpc sentence1: They varied greatly , ranging from one per cent or two per cent to 36 per cent for a speciality US brand ",
    ),
    "cola": SimpleNamespace(
        words=["unacceptable", "acceptable"], metric="macro_f1", source=lambda row: "cola sentence: " + row["sentence"]
    ),
    "qqp": SimpleNamespace(
        words=["not_duplicate", "duplicate"],
        metric="f1",
        source=lambda row: "qqp question1: " + row["question1"] + " question2: " + row["question2"],
        first="qqp question1: Why are Chattarpur Farms so famous? Is that a status symbol to have a property there? question2: In WW2, how did ",
    ),
    "emotion": SimpleNamespace(
        words=["sadness", "joy", "love", "anger", "fear", "surprise"],
        metric="macro_f1",
        splits="given",  # its three splits have labels, and it is no task of the paper
        path="dair-ai/emotion",
        config="split",
        source=lambda row: "emotion sentence: " + row["text"],
        first="emotion sentence: i feel neglectful that i have to skip over all the entries from this community",
    ),
}
SCORES = [f"{i / 5:.1f}" for i in range(26)]
OTHERS["stsb"] = SimpleNamespace(words=SCORES, metric="pearson")
EVERY = EXPECTED | OTHERS
PAIRS = {
    "inference": (["mnli", "qnli"], ["scitail", "snli"]),
    "topic": (["dbpedia_14", "trec"], ["ag_news", "yahoo_answers_topics"]),
    "sentiment": (["sst2", "yelp_polarity"], ["imdb", "sst5"]),
}


def shared_rows(name, split):
    with gzip.open(DATA / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test here may reach the network, nor see a local copy it did not name."""

    def refuse(*_, **__):
        raise OSError("network use in a test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("TPV_DATA_DIR", raising=False)


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """Put rows of a task where `datasets` finds them: a folder laid out as on the hub, in place of the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def make(name, **splits):
        source = task_specs()[name].source
        folder = tmp_path / "hub" / source.path.rsplit("/")[-1]
        folder.mkdir(parents=True)
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
        files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in splits)
        name_line = f"- config_name: {source.name or 'default'}\n  data_files:\n"
        (folder / "README.md").write_text(f"---\nconfigs:\n{name_line}{files}---\n")
        sizes = {split: len(splits.get(split, ())) for split in source.sizes}
        changes = {"path": str(folder), "revision": None, "sizes": sizes, "unlabelled": {}}
        spec = task_specs()[name].model_copy(update={"source": source.model_copy(update=changes)})
        monkeypatch.setitem(task_specs(), name, spec)
        return spec

    return make


def sentences(count, mark="t", labels=2):
    return [
        {"sentence": f"{mark}{i}", "text": f"{mark}{i}", "label": i % labels, "coarse_label": i % 6}
        for i in range(count)
    ]


def pairs(labels, mark="t"):
    return [{"premise": f"{mark}{i}", "hypothesis": "h", "label": label, "idx": i} for i, label in enumerate(labels)]


def counts(task):
    return [len(task.splits[split]) for split in SPLITS]


def test_families_roles_and_metrics_are_those_of_the_paper():
    labelled = {name: spec for name, spec in task_specs().items() if spec.output != "text"}
    specs = {name: spec for name, spec in labelled.items() if isinstance(spec.source, HubSource)}
    assert set(specs) == set(EVERY)
    assert all(name.startswith("mini/") or name in specs for name in labelled)
    for family, by_role in PAIRS.items():
        for role, names in zip(("source", "target"), by_role, strict=True):
            for name in names:
                assert (specs[name].family, specs[name].role, specs[name].splits) == (family, role, "paper")
    for name, spec in specs.items():
        assert list(spec.labels) == EVERY[name].words
        assert spec.positive == 1
        if name in EXPECTED:
            assert spec.metric == ("f1" if len(EXPECTED[name].words) == 2 else "macro_f1")
        else:
            about = OTHERS[name]
            splits = getattr(about, "splits", "paper")
            assert (spec.role, spec.splits, spec.metric) == ("other", splits, about.metric)
            place = (getattr(about, "path", "nyu-mll/glue"), getattr(about, "config", name))
            assert (spec.source.path, spec.source.name) == place


@needs_data
@pytest.mark.parametrize("name", [name for name, about in EVERY.items() if hasattr(about, "first")])
def test_a_local_copy_is_used_as_it_is(name, monkeypatch):
    task = tpv.load_task(name, data_dir=DATA)
    expected = EVERY[name]
    for split in SPLITS:
        rows, examples = shared_rows(name, split), task.examples(split)
        assert [example.source for example in examples] == [expected.source(row) for row in rows]
        assert [example.label for example in examples] == [row["label"] for row in rows]
        assert [example.target for example in examples] == [expected.words[row["label"]] for row in rows]
        assert examples[-1].id == f"{split}.jsonl.gz:{len(rows) - 1}"
    first = task.examples("train")[0].source
    assert first.startswith(expected.first)
    assert first == expected.first or len(first) > 120
    monkeypatch.setenv("TPV_DATA_DIR", str(DATA))
    assert tpv.load_task(name).fingerprint == task.fingerprint


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_local_copies_in_other_formats(tmp_path, suffix):
    folder = tmp_path / "scitail"
    folder.mkdir()
    for split in SPLITS:
        rows = pairs(["entails", "neutral"] if split == "train" else [0, 1], split)
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
        else:
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = tpv.load_task("scitail", data_dir=tmp_path)
    for split in SPLITS:
        assert [(e.source, e.target) for e in task.examples(split)] == [
            (f"scitail premise: {split}0 hypothesis: h", "entailment"),
            (f"scitail premise: {split}1 hypothesis: h", "neutral"),
        ]
    (folder / "test.csv").write_text("premise,hypothesis,label\na,b,0\n")
    with pytest.raises(tpv.TpvError, match="several test files"):
        tpv.load_task("scitail", data_dir=tmp_path)
    for path in folder.glob("test.*"):
        path.unlink()
    with pytest.raises(tpv.TpvError, match=r"no test data of task 'scitail' in .*scitail; expected .*test\{.csv"):
        tpv.load_task("scitail", data_dir=tmp_path)
    (folder / "test.jsonl").write_text('{"premise": "a", "label": 0}\n')
    with pytest.raises(tpv.TpvError, match=r"test\.jsonl has no text column 'hypothesis'"):
        tpv.load_task("scitail", data_dir=tmp_path)
    (folder / "test.jsonl").write_text('{"premise": "a", "hypothesis": "b", "label": "entail"}\n')
    with pytest.raises(tpv.TpvError, match=r"row 1: label 'entail' is not one of the task's"):
        tpv.load_task("scitail", data_dir=tmp_path)


def test_every_missing_local_copy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TPV_DATA_DIR", str(tmp_path))
    for name in EVERY:
        with pytest.raises(tpv.TpvError, match=rf"no train data of task '{name}' in {tmp_path}"):
            tpv.load_task(name)


@pytest.mark.parametrize("rows", [10_000, 10_001])
def test_splits_of_appendix_a(data_set, rows):
    """Over 10,000 rows, 1,000 of train become validation and validation becomes test; else validation is halved."""
    spec = data_set("sst2", train=sentences(rows), validation=sentences(301, "v"))
    task = tpv.load_task("sst2")
    everything = {f"sst2 sentence: t{i}" for i in range(rows)}, {f"sst2 sentence: v{i}" for i in range(301)}
    train, validation, test = ({example.source for example in task.examples(split)} for split in SPLITS)
    if rows > 10_000:
        assert counts(task) == [rows - 1000, 1000, 301]
        assert (train | validation, test) == everything
    else:
        assert counts(task) == [rows, 150, 151]
        assert (train, validation | test) == everything
    assert split_sizes(spec) == dict(zip(SPLITS, counts(task), strict=True))
    assert all(e.label == int(e.source.split("t")[-1]) % 2 for e in task.examples("train"))
    other = tpv.load_task("sst2", seed=1)
    assert task.splits["validation"] == tpv.load_task("sst2").splits["validation"] != other.splits["validation"]


def test_a_test_split_stands_in_where_no_other_is_labelled(data_set):
    trec = data_set("trec", train=sentences(60), test=sentences(41, "v"))
    assert counts(tpv.load_task("trec")) == [60, 20, 21] == list(split_sizes(trec).values())
    # the authors halve the test split of TREC too
    assert tpv.load_task("trec", authors_splits=True).splits == tpv.load_task("trec").splits
    assert {e.id.split(":")[0] for split in SPLITS[1:] for e in tpv.load_task("trec").examples(split)} == {"test"}
    assert [e.target for e in tpv.load_task("trec").examples("train")[:6]] == EXPECTED["trec"].words
    imdb = data_set("imdb", train=sentences(10_500), test=sentences(41, "v"), unsupervised=sentences(9, "u"))
    assert counts(tpv.load_task("imdb")) == [9500, 1000, 41] == list(split_sizes(imdb).values())


def test_mrpc_takes_validation_though_its_test_split_has_labels(data_set):
    both = [{"sentence1": f"a{i}", "sentence2": f"b{i}", "label": i % 2} for i in range(9)]
    data_set("mrpc", train=both, validation=both[:5], test=both)
    assert counts(tpv.load_task("mrpc")) == [9, 2, 3]
    first = tpv.load_task("mrpc").examples("train")[0]
    assert (first.source, first.target) == ("mrpc sentence1: a0 sentence2: b0", "not_equivalent")
    assert {e.id.split(":")[0] for split in SPLITS for e in tpv.load_task("mrpc").examples(split)} == {
        "train",
        "validation",
    }


def alike(scores):
    return [{"sentence1": f"a{i}", "sentence2": f"b{i}", "label": score} for i, score in enumerate(scores)]


def test_stsb_says_the_rounded_score_and_keeps_the_true_one(data_set):
    """Rounded as in T5, `round(5 * score) / 5` with halves to even; a score of -1 is GLUE's "no label"."""
    scores = [0.0, 0.09, 0.11, 3.75, 2.5, 0.5, 0.1, 0.3, 4.9, 5.0, -1.0]
    data_set("stsb", train=alike(scores), validation=alike([1.0, 4.0, 2.0]))
    task = tpv.load_task("stsb")
    examples = task.examples("train")
    assert [e.target for e in examples] == ["0.0", "0.0", "0.2", "3.8", "2.4", "0.4", "0.0", "0.4", "4.8", "5.0"]
    assert [e.target for e in examples] == [f"{round(5 * score) / 5:.1f}" for score in scores[:-1]]
    assert [e.value for e in examples] == scores[:-1]
    assert examples[3].source == "stsb sentence1: a3 sentence2: b3"


@pytest.mark.parametrize(("score", "got"), [(5.1, "5.1"), (-0.5, "-0.5"), (None, "None"), ("good", "'good'")])
def test_a_score_that_is_none_is_refused(tmp_path, score, got):
    (tmp_path / "stsb").mkdir()
    for split in SPLITS:
        rows = alike([1.0] if split != "test" else [score])
        (tmp_path / "stsb" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(tpv.TpvError, match=rf"test\.jsonl row 1: .*expected a number from 0\.0 to 5\.0; got {got}"):
        tpv.load_task("stsb", data_dir=tmp_path)


@needs_data
def test_real_stsb():
    task = tpv.load_task("stsb", data_dir=DATA)
    for split in SPLITS:
        rows, examples = shared_rows("stsb", split), task.examples(split)
        assert [e.value for e in examples] == [row["label"] for row in rows]
        assert [e.target for e in examples] == [f"{round(5 * row['label']) / 5:.1f}" for row in rows]
    assert len({e.label for e in task.examples("train")}) == 26


def test_the_true_score_is_part_of_the_fingerprint(data_set):
    data_set("stsb", train=alike([3.0, 3.05]), validation=alike([1.0, 4.0]))
    task = tpv.load_task("stsb")
    other = [replace(e, value=3.0) for e in task.examples("train")]
    assert [e.target for e in other] == ["3.0", "3.0"]
    assert replace(task, splits={**task.splits, "train": tuple(other)}).fingerprint != task.fingerprint


# What older run directories and vectors hold must stay valid: fingerprints as they were before tasks had values.
BEFORE = {
    "sst2": "a288bf087a6ad1e09bf3368fd4d5fba386bf96ebab0ddd372c27abab3be868c8",
    "trec": "34a164148b11ffaf9abc01df77b9a34985307854b221ceca226460b8585a1a8b",
    "dbpedia_14": "a657a3727d47e00edf72ad3549ddaa071ca51f01535bc021e17ef12537aac1e7",
    "imdb": "e66b99ef28687c48ff882089172f1fe2efd7545f201e067da570f6e61bf0f5f8",
    "yelp_polarity": "158e6008048049f58f7c918f8e854d05f720068b96b07f921792b55a56982c38",
}


@needs_data
@pytest.mark.parametrize("name", BEFORE)
def test_fingerprints_are_what_they_were(name):
    assert tpv.load_task(name, data_dir=DATA).fingerprint == BEFORE[name]


def test_a_test_split_without_labels_is_not_asked_for(data_set):
    hidden = [{"sentence": "x", "label": -1}]
    data_set("cola", train=sentences(6), validation=sentences(4, "v"), test=hidden)
    task = tpv.load_task("cola")
    assert counts(task) == [6, 2, 2]
    assert [(e.source, e.target) for e in task.examples("train")[:2]] == [
        ("cola sentence: t0", "unacceptable"),
        ("cola sentence: t1", "acceptable"),
    ]


@pytest.mark.parametrize("name", EVERY)
def test_an_instruction_names_the_label_words_and_then_the_fields(name):
    text, spec = task_specs()[name], without_rows(name, style="instruct").spec
    instruction, fields = spec.template.split("{", 1)
    words = ["0.0", "5.0", "0.2"] if name == "stsb" else spec.labels
    assert all(re.search(rf"\b{re.escape(word)}\b", instruction) for word in words)
    assert template_fields("{" + fields) == list(spec.fields)
    assert spec.template != text.template == without_rows(name).spec.template
    assert spec.model_copy(update={"template": text.template}) == text


def test_a_style_is_the_same_rows_in_other_words(data_set):
    data_set("sst2", train=sentences(30), validation=sentences(8, "v"))
    text, instruct = tpv.load_task("sst2"), tpv.load_task("sst2", style="instruct")
    for split in SPLITS:
        pairs_ = list(zip(text.examples(split), instruct.examples(split), strict=True))
        assert all(a.id == b.id and a.target == b.target for a, b in pairs_)
        for a, b in pairs_:
            assert b.source.endswith(
                " Answer with negative or positive. Sentence: " + a.source.removeprefix("sst2 sentence: ")
            )
    assert text.fingerprint != instruct.fingerprint
    assert tpv.load_task("sst2", style="text").fingerprint == text.fingerprint
    with pytest.raises(tpv.TpvError, match="unknown style 'instructed' of a template; did you mean 'instruct'"):
        tpv.load_task("sst2", style="instructed")


def test_rows_without_a_gold_label_are_dropped(data_set):
    labels = [0, -1, 2, 1, -1]
    data_set("snli", train=pairs(labels), validation=pairs([-1, *labels], "v"), test=pairs([0]))
    task = tpv.load_task("snli")
    assert [(e.id, e.source, e.target) for e in task.examples("train")] == [
        ("train:0", "snli premise: t0 hypothesis: h", "entailment"),
        ("train:2", "snli premise: t2 hypothesis: h", "contradiction"),
        ("train:3", "snli premise: t3 hypothesis: h", "neutral"),
    ]
    assert {e.id for split in SPLITS[1:] for e in task.examples(split)} == {f"validation:{i}" for i in (1, 3, 4)}


def test_a_split_without_labels_is_refused(data_set):
    data_set("snli", train=pairs([0, 1]), validation=pairs([-1, -1]), test=pairs([0]))
    with pytest.raises(tpv.TpvError, match="the validation split of task 'snli' has no labelled rows"):
        tpv.load_task("snli")


def test_scitail_names_its_labels_otherwise(data_set):
    names = ["entails", "neutral", "neutral"]
    data_set("scitail", train=pairs(names), validation=pairs(names, "v"), test=pairs(names, "x"))
    task = tpv.load_task("scitail")
    assert [(e.label, e.target) for e in task.examples("train")] == [(0, "entailment"), (1, "neutral"), (1, "neutral")]
    assert not any("x" in e.source for split in SPLITS for e in task.examples(split)), "appendix A takes validation"


def test_mnli_as_in_the_paper_and_as_in_the_authors_code(data_set):
    spec = data_set(
        "mnli",
        train=pairs([0, 1, 2] * 20),
        validation_matched=pairs([0, 1, 2, 1], "m"),
        validation_mismatched=pairs([2, 1, 0], "x"),
        test_matched=pairs([-1] * 3),
    )
    paper, authors = tpv.load_task("mnli"), tpv.load_task("mnli", authors_splits=True)
    assert counts(paper) == [60, 2, 2] == list(split_sizes(spec).values())
    assert counts(authors) == [60, 3, 4] == list(split_sizes(spec, authors_splits=True).values())
    assert [e.source for e in authors.examples("validation")] == [f"mnli premise: x{i} hypothesis: h" for i in range(3)]
    assert [e.source for e in authors.examples("test")] == [f"mnli premise: m{i} hypothesis: h" for i in range(4)]
    assert [e.target for e in authors.examples("validation")] == ["contradiction", "neutral", "entailment"]


def test_a_task_says_where_its_rows_come_from(data_set, tmp_path):
    spec = data_set("rte", train=alike([0, 1]), validation=alike([0, 1, 1]))
    origin = {"hub data set": spec.source.path, "revision": "main", "configuration": "rte"}
    task = tpv.load_task("rte")
    assert task.origin == origin
    assert task.few_shot(1, seed=0).origin == task.limited({"test": 1}, 0).origin == origin
    commit = "0123456789abcdef0123456789abcdef01234567"
    files = {f"hf://datasets/a/b@{commit}/x/{split}.parquet": {"num_bytes": 1} for split in SPLITS}
    trec = task_specs()["trec"].source
    about = {"hub data set": "CogComp/trec", "revision": "refs/convert/parquet"}
    assert _origin(trec, SimpleNamespace(download_checksums=files)) == about | {"commit": commit}
    assert _origin(trec, SimpleNamespace(download_checksums=None)) == about
    mixed = files | {"hf://datasets/a/b@f" + commit[1:] + "/y.parquet": {}}
    assert _origin(trec, SimpleNamespace(download_checksums=mixed)) == about, "not known which of two"


def test_columns_called_otherwise_on_the_hub(data_set):
    rows = [
        {
            "id": i,
            "topic": i % 10,
            "question_title": f"t{i}",
            "question_content": None if i else "c",
            "best_answer": f"a{i}",
        }
        for i in range(20)
    ]
    data_set("yahoo_answers_topics", train=rows, test=rows)
    first, second = tpv.load_task("yahoo_answers_topics").examples("train")[:2]
    question = "yahoo What is the category for following text: "
    assert first.source == question + "title: t0 content: c answer: a0"
    assert (second.source, second.target) == (question + "title: t1 content:  answer: a1", "Science")


def test_a_column_may_only_be_missing_in_a_local_copy(data_set):
    rows = [{"topic": 0, "question_title": "t", "question_content": "c"}] * 4
    data_set("yahoo_answers_topics", train=rows, test=rows)
    with pytest.raises(tpv.TpvError, match="has no text column 'best_answer'"):
        tpv.load_task("yahoo_answers_topics")


def test_what_does_not_load_is_one_line(data_set):
    spec = data_set("sst2", train=sentences(9), dev=sentences(9))
    with pytest.raises(tpv.TpvError, match=r"data set .* of task 'sst2' does not load; got .*validation") as error:
        tpv.load_task("sst2")
    assert "\n" not in str(error.value)
    task_specs()["sst2"] = spec.model_copy(update={"source": spec.source.model_copy(update={"name": "other"})})
    with pytest.raises(tpv.TpvError, match=r"does not load; got .*other"):
        tpv.load_task("sst2")


def test_sizes_known_without_a_network():
    sizes = {name: tuple(split_sizes(task_specs()[name]).values()) for name in EVERY}
    assert sizes == {
        "mnli": (391_702, 1_000, 9_815),
        "qnli": (103_743, 1_000, 5_463),
        "dbpedia_14": (559_000, 1_000, 70_000),
        "trec": (5_452, 250, 250),
        "sst2": (66_349, 1_000, 872),
        "yelp_polarity": (559_000, 1_000, 38_000),
        "scitail": (22_097, 1_000, 1_304),
        "snli": (548_367, 1_000, 9_842),
        "ag_news": (119_000, 1_000, 7_600),
        "yahoo_answers_topics": (1_399_000, 1_000, 60_000),
        "imdb": (24_000, 1_000, 25_000),
        "sst5": (8_544, 550, 551),
        "rte": (2_490, 138, 139),
        "mrpc": (3_668, 204, 204),
        "cola": (8_551, 521, 522),
        "qqp": (362_846, 1_000, 40_430),
        "stsb": (5_749, 750, 750),
        "emotion": (16_000, 2_000, 2_000),
    }
    authors = {name: tuple(split_sizes(task_specs()[name], authors_splits=True).values()) for name in EVERY}
    assert authors == sizes | {"mnli": (392_702, 9_832, 9_815)}
    with pytest.raises(tpv.TpvError, match="sizes of task 'mini/sst2' are not known"):
        split_sizes(task_specs()["mini/sst2"])


@pytest.mark.parametrize("name", EVERY)
def test_without_a_network_one_line_says_what_works(name, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(tpv.TpvError, match=f"task '{name}' needs data set .* hub cannot be reached") as error:
        tpv.load_task(name)
    message = str(error.value)
    assert "\n" not in message
    for what in ("mini tasks", "local files", "data_dir", "TPV_DATA_DIR"):
        assert what in message
    assert not datasets.config.HF_HUB_OFFLINE


def test_offline_mode_is_asked_first(tmp_path):
    """In a process of its own: the hub's client reads the variable when it is imported."""
    code = "import tpv\ntry:\n    tpv.load_task('sst2')\nexcept tpv.TpvError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.startswith("task 'sst2' needs data set 'stanfordnlp/sst2'"), done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_without_a_network_the_cache_of_an_earlier_download_works(data_set, tmp_path, monkeypatch, capfd):
    """The cache is made from a local folder, then put where a download from the hub would have left it."""
    original = task_specs()["sst2"]
    data_set("sst2", train=sentences(30), validation=sentences(8, "v"))
    expected = tpv.load_task("sst2").splits
    shutil.copytree(tmp_path / "cache" / "sst2", tmp_path / "cache" / "stanfordnlp___sst2")
    monkeypatch.setitem(task_specs(), "sst2", original)
    assert tpv.load_task("sst2").splits == expected
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_options_that_do_not_apply_are_refused(tmp_path, monkeypatch):
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "a,0\nb,1\n" * 20)
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nfields = ["text"]\ntemplate = "{text}"\nlabels = ["no", "yes"]\n'
        '[source]\nkind = "files"\ntrain = "rows.csv"\n'
    )
    for name in ("mini/sst2", tmp_path / "mine.toml", rows):
        with pytest.raises(tpv.TpvError, match="not one of the hub's; got options for those: data_dir"):
            tpv.load_task(name, data_dir=tmp_path)
        with pytest.raises(tpv.TpvError, match="got options for those: authors_splits"):
            tpv.load_task(name, authors_splits=True)
    with pytest.raises(tpv.TpvError, match="says itself what its data is; got options for data files: text"):
        tpv.load_task("sst2", text="sentence")
    with pytest.raises(tpv.TpvError, match=r"either the authors'.*got authors_splits with '/copies'"):
        tpv.load_task("mnli", data_dir="/copies", authors_splits=True)
    monkeypatch.setenv("TPV_DATA_DIR", str(tmp_path))
    with pytest.raises(tpv.TpvError, match="got authors_splits with TPV_DATA_DIR="):
        tpv.load_task("mnli", authors_splits=True)
    assert tpv.load_task("mini/sst2").name == "mini/sst2"
    assert len(tpv.load_task(tmp_path / "mine.toml").examples("train")) == 32


def test_a_path_is_never_taken_for_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imdb").mkdir()
    (tmp_path / "imdb" / "train.csv").write_text("text,label\n" + "a,0\nb,1\n" * 20)
    (tmp_path / "imdb" / "test.csv").write_text("text,label\na,0\n")
    for path in (tmp_path / "imdb", "./imdb", (tmp_path / "imdb").relative_to(tmp_path)):
        assert tpv.load_task(path).labels == ("0", "1")


def test_mistakes_in_a_hub_source_are_refused():
    right = {
        "name": "n",
        "fields": ["a"],
        "template": "{a}",
        "labels": ["x", "y"],
        "splits": "paper",
        "source": {"kind": "hub", "path": "p/q", "splits": {"train": "train", "test": "test"}},
    }
    assert not isinstance(build_spec(right, where="here").source, GeneratedSource)
    mistakes = {
        "extra_forbidden|Extra inputs": {"trust_remote_code": True},
        r"name \['b'\]": {"columns": {"b": "c"}},
        r"joined name \['b'\]": {"optional": ["b"]},
        "label_values must be 2 different ones": {"label_values": ["x", "x"]},
        "need train and validation or test": {"splits": {"train": "train"}},
        "dev": {"splits": {"train": "train", "dev": "dev"}},
        "authors_validation is for": {"authors_validation": "other"},
        r"sizes are of \['train'\]": {"sizes": {"train": 3}},
        "more unlabelled rows than rows": {"sizes": {"train": 3, "test": 3}, "unlabelled": {"test": 4}},
        "greater than or equal to 0": {"sizes": {"train": 3, "test": -3}},
    }
    for words, change in mistakes.items():
        with pytest.raises(tpv.TpvError, match=f"here does not describe a task; got .*({words})"):
            build_spec({**right, "source": {**right["source"], **change}}, where="here")


def test_datasets_is_not_imported_before_it_is_needed():
    code = "import sys, tpv\ntpv.load_task('mini/sst2')\nsys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
