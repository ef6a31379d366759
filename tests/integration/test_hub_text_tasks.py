"""Text tasks of the hub and of the shared data, from rows in the layout that each has there."""

import json

import pytest
from places import SHARED

import tpv
from tpv.tasks import task_specs

DATA = SHARED / "data"
SPLITS = ("train", "validation", "test")

# rows as the hub has them, and what becomes of them: input, target, all right answers (where there are several)
LAYOUTS = {
    "squad": (
        {
            "id": "1",
            "title": "T",
            "context": "Denver won.",
            "question": "Who won?",
            "answers": {"text": ["Denver", "Denver", "the Broncos"], "answer_start": [0, 0, 3]},
        },
        ("question: Who won? context: Denver won.", "Denver", ("Denver", "the Broncos")),
    ),
    "squad_v2": (
        {"id": "1", "title": "T", "context": "Rain.", "question": "Who?", "answers": {"text": [], "answer_start": []}},
        ("question: Who? context: Rain.", "unanswerable", ()),
    ),
    "gsm8k": (
        {"question": "2 and 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
        ("question: 2 and 3?", "2 + 3 = <<2+3=5>>5\n#### 5", ()),
    ),
    "math": (
        {"problem": "$1+1$", "level": "Level 1", "type": "Algebra", "solution": r"It is $\boxed{2}$."},
        ("problem: $1+1$", r"It is $\boxed{2}$.", ()),
    ),
    "xsum": ({"document": "Long.", "summary": "Short.", "id": "1"}, ("summarize: Long.", "Short.", ())),
    "samsum": (
        {"id": "1", "dialogue": "A: hi\r\nB: hi", "summary": "They greet."},
        ("summarize: A: hi\r\nB: hi", "They greet.", ()),
    ),
    "web_nlg": (
        {
            "gem_id": "1",
            "input": ["Aarhus | country | Denmark", "Aarhus | elevation | 25"],
            "target": "Aarhus is in Denmark.",
            "references": ["Aarhus is in Denmark.", "Denmark has Aarhus."],
            "category": "Airport",
        },
        (
            "triples: Aarhus | country | Denmark ; Aarhus | elevation | 25",
            "Aarhus is in Denmark.",
            ("Aarhus is in Denmark.", "Denmark has Aarhus."),
        ),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_of_the_hub(tmp_path, name):
    row, (source, target, answers) = LAYOUTS[name]
    folder = tmp_path / name
    folder.mkdir()
    for split in SPLITS:
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    task = tpv.load_task(name, data_dir=tmp_path)
    (example,) = task.examples("test")
    assert (example.source, example.target, example.answers) == (source, target, answers)
    assert task.spec.output == "text"
    instructed = tpv.load_task(name, data_dir=tmp_path, style="instruct").examples("test")[0].source
    assert instructed != source
    assert all(str(value) in instructed for value in (row.get(field) for field in task.spec.fields) if value)
    if name == "math":
        assert r"put the final answer into \boxed{}." in instructed


def test_a_row_of_the_hub_without_an_answer_is_dropped(tmp_path):
    rows = [{"id": "1", "dialogue": "A: hi", "summary": "They greet."}, {"id": "2", "dialogue": "", "summary": None}]
    (tmp_path / "samsum").mkdir()
    for split in SPLITS:
        (tmp_path / "samsum" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(tpv.load_task("samsum", data_dir=tmp_path).examples("train")) == 1


def test_as_datasets_gives_them(tmp_path, monkeypatch):
    """From a local folder in the hub's layout, through `datasets` itself."""
    import datasets

    row = LAYOUTS["squad"][0]
    rows = [row | {"id": str(i), "question": f"Who won {i}?"} for i in range(30)]
    for split in ("train", "validation"):
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "squad" / f"{split}-00000-of-00001.parquet")
    spec = task_specs()["squad"]
    source = spec.source.model_copy(update={"path": str(tmp_path / "squad")})
    file = tmp_path / "squad.toml"
    import tomli_w

    content = spec.model_copy(update={"source": source}).model_dump(mode="json", exclude_none=True)
    file.write_text(tomli_w.dumps(content))
    task = tpv.load_task(file)
    assert (len(task.examples("train")), len(task.examples("validation")), len(task.examples("test"))) == (30, 15, 15)
    assert task.examples("train")[0].answers == ("Denver", "the Broncos")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data folder, which is not here")
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("relations", (900, 100, 100)),
        ("outcomes", (298, 40, 43)),
        ("quoref", (709, 100, 100)),
        ("sciq", (900, 100, 100)),
        ("samsum", (140, 20, 20)),
    ],
)
def test_the_shared_text_tasks(name, sizes):
    task = tpv.load_task(f"text/{name}", data_dir=DATA)
    assert tuple(len(task.examples(split)) for split in SPLITS) == sizes
    assert all(row.target.strip() and row.source.strip() for row in task.examples("train"))


def test_without_a_local_copy_it_says_where_to_put_one(monkeypatch):
    monkeypatch.delenv("TPV_DATA_DIR", raising=False)
    with pytest.raises(tpv.TpvError, match=r"task 'text/sciq' is on no hub; expected a folder with text/sciq/train"):
        tpv.load_task("text/sciq")
