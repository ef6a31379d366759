"""Readers of `fuzz` for what tuning leaves behind and what is done with it: tuned folders, files to label, text tasks."""

from __future__ import annotations

import io
import json
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import made_files as made
import mutations as m
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import tpv
from tpv.cli.tuned import of_folder
from tpv.evaluation import label_file as label_files
from tpv.evaluation.label_file import Endpoint, label_file
from tpv.evaluation.tuned import PROMPT_FILE, TASK_FILE, About, ModelChoice, Tuned
from tpv.outputs.ranking import Calibrator
from tpv.outputs.text import Texts, per_example
from tpv.prompts import storage
from tpv.registry import register
from tpv.tasks import formats, load_task
from tpv.tasks.spec import TEXT_METRICS, build_spec
from tpv.tasks.task import Task

TEXT_TASK = {
    "name": "gists",
    "output": "text",
    "fields": ["text"],
    "template": "say: {text}",
    "cue": "gist:",
    "metric": "rouge_l",
    "max_target_length": 8,
    "no_answer": "none",
    "source": {"kind": "files", "train": "rows.csv", "target_column": "label"},
}


# --- tuned folders --------------------------------------------------------------------------------
@cache
def tuned_files() -> tuple[tuple[dict[str, Any], ...], tuple[bytes, ...]]:
    """The values of valid `task.toml`s; a prompt that all of them fit, one of another model, and a vector."""
    prompt = tpv.SoftPrompt.sample(made.backbone(), num_tokens=2, seed=0)
    labels = made.TASK["labels"]
    sure = Calibrator(labels=labels, temperature=1.5, bias=(-0.25, 0.25), rows=12)
    context = sure.model_copy(update={"normalize": "context"})
    model = ModelChoice(name="mini")
    tuned = [
        (made.TASK, About(model=model, max_input_length=64, calibrator=sure)),
        (made.TASK, About(model=model, calibrator=context)),
        (TEXT_TASK, About(model=model)),
        (load_task("mini/sst2").spec.model_dump(), About(model=model)),
        (tpv.tasks.task_specs()["qqp"].model_dump(), About(model=ModelChoice(name="mini", precision="bf16"))),
    ]
    found = []
    with tempfile.TemporaryDirectory() as place:
        for values, about in tuned:
            Tuned(Task(build_spec(values, where="task"), {}), prompt, about).save(Path(place))
            found.append(tomllib.loads((Path(place) / TASK_FILE).read_text()))
    other = tpv.SoftPrompt(
        prompt.tensor[:, :4].contiguous(), prompt.model.model_copy(update={"hidden_size": 4}), prompt.init
    )
    items = (prompt, other, prompt.tuned_to(prompt.tensor + 1, "numbers") - prompt)
    return tuple(found), tuple(storage.saved_bytes(item) for item in items)


def make_tuned(rng: Random, folder: Path) -> None:
    trees, (prompt, *others) = tuned_files()
    place, tree = folder / "tuned", rng.choice(trees)
    place.mkdir()
    (folder / "new.csv").write_text(made.CSV)
    if not made.odd_place(rng, place / TASK_FILE):
        (place / TASK_FILE).write_bytes(made.toml_of(rng, tree) if rng.randrange(6) else m.as_toml(tree))
    if not made.odd_place(rng, place / PROMPT_FILE) and rng.randrange(40):
        how = rng.randrange(8)
        other = rng.choice((m.spoil, m.reheaded))(rng, prompt) if how == 0 else rng.choice(others)
        (place / PROMPT_FILE).write_bytes(other if how < 2 else prompt)
    if rng.randrange(20) == 0:
        (place / rng.choice(("initialization.safetensors", "\x1b[2J", ".hidden", "task.json"))).write_bytes(prompt)


def read_tuned(rng: Random, folder: Path) -> None:
    tuned = Tuned.load(folder / "tuned")
    used = of_folder(tuned)
    repr(used)
    again = folder / "again"
    again.mkdir()
    tuned.save(again)
    tuned.prompt.save(again / PROMPT_FILE)
    other = Tuned.load(again)
    assert (other.task.spec, other.about) == (tuned.task.spec, tuned.about), "what was written is not what is read"
    model = tuned.about.model
    backbone = made.backbone()
    if model != ModelChoice(name="mini"):
        backbone = tpv.load_backbone(**model.model_dump(), device="cpu")
    rows = [dict.fromkeys(used.columns(None), "the plot is dull")]
    if tuned.task.labels:
        given = {"max_input_length": used.length, "calibrator": used.calibrator}
        table = tpv.predict(backbone, tuned.task, tuned.prompt, used.whole(rows), **given)
        assert set(table["predicted"].to_pylist()) <= set(tuned.task.labels)
    else:
        tpv.generate(
            backbone, tuned.task, tuned.prompt, used.whole(rows), max_new_tokens=2, max_input_length=used.length
        )
    _ = tuned.with_rows(test=folder / "new.csv", label=rng.choice((None, "label"))).fingerprint


# --- files to label -------------------------------------------------------------------------------
class Interrupt(Exception):
    """The call that labels a file ends in its middle."""


ENCODINGS = (*[None] * 30, "utf-16", "latin-1", "utf-8-sig", "cp1252", "rot13", "hex", "nonsense", "", "a\0b")
OUTPUTS = (".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet", ".json", ".txt", "")
ADDED: dict[str, type] = {"answer": str, "sure": float}


def make_labelled(rng: Random, folder: Path) -> None:
    suffix = rng.choice(made.SUFFIXES)
    path = folder / f"rows{suffix}"
    if made.odd_place(rng, path):
        return
    path.write_bytes(_beside(rng, suffix) if rng.randrange(2) else made.data_of(rng, suffix))


def _beside(rng: Random, suffix: str) -> bytes:
    """Good texts, and beside them what is seldom expected."""
    if suffix not in (".jsonl", ".json", ".parquet"):
        return made.data_files()[suffix]
    rows = [
        {"text": row["text"], "other": m.value(rng), "id": rng.choice((1, 1.5, "1", None))} for row in made.table_rows()
    ]
    if rng.randrange(4) == 0:
        rows[-1]["late"] = rng.choice((1, "x", None))
    if suffix == ".json":
        return m.as_json(rows)
    if suffix == ".jsonl":
        return b"\n".join(json.dumps(row).encode() for row in rows)  # lone surrogates escaped, as JSON can
    buffer = io.BytesIO()
    try:
        odd = [rng.choice(made.odd_arrays(len(rows)))() for _ in range(2)]
        texts = pa.array([row["text"] for row in rows])
        pq.write_table(pa.table([odd[0], texts, odd[1]], names=["other", "text", "id"]), buffer)
    except (pa.ArrowException, OSError):
        return made.data_files()[".parquet"]
    return buffer.getvalue()


def read_labelled(rng: Random, folder: Path) -> None:
    source = next((path for path in folder.iterdir() if formats.format_of(path)), folder / "rows.csv")
    target = folder / "out" / f"labelled{rng.choice(OUTPUTS[:5] if rng.randrange(8) else OUTPUTS)}"
    target.parent.mkdir()
    made.odd_place(rng, target)
    before, label_files.CHUNK = label_files.CHUNK, 5
    try:
        how = rng.randrange(4)
        if how == 0:
            _through_streams(rng, source, target)
        else:
            if how == 1:
                _interrupted(rng, source, target)
            _label(rng, Endpoint.of(source, io.BytesIO(), None, ""), Endpoint.of(target, io.BytesIO(), None, ""))
    finally:
        label_files.CHUNK = before


def _label(rng: Random, source: Endpoint, target: Endpoint, chunks: int = 10**9) -> None:
    """Label rows with a real prompt, and read what was written."""
    task, prompt = tpv.tasks.labels_only(["no", "yes"]), tpv.SoftPrompt.sample(made.backbone(), 2)
    done = 0

    def answer(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        nonlocal done
        done += 1
        if done > chunks:
            raise Interrupt
        table = tpv.predict(made.backbone(), task, prompt, rows, max_input_length=32)
        pairs = zip(table["predicted"].to_pylist(), table["probability"].to_pylist(), strict=True)
        return [{"answer": word, "sure": sure} for word, sure in pairs]

    encoding = rng.choice(ENCODINGS) if chunks > 1 else None
    counts = label_file(source, target, {"text": "text"}, answer, ADDED, key=0, encoding=encoding)
    if target.path is not None:
        rows = formats.read_all(target.path)
        assert len(rows) == counts.rows, f"{counts.rows} rows in, {len(rows)} out"
        said = [row["answer"] for row in rows]
        assert sum(word not in (None, "") for word in said) == counts.rows - counts.empty
        assert {*said} <= {None, "", "no", "yes"}


def _through_streams(rng: Random, source: Path, target: Path) -> None:
    kind = rng.choice((None, *formats.SUFFIXES.values()))
    try:
        stream = io.BytesIO(source.read_bytes()) if source.is_file() else io.BytesIO()
    except OSError:
        stream = io.BytesIO()
    places = (Path("-"), Path("-") if rng.randrange(2) else target)
    _label(
        rng,
        *(Endpoint.of(place, each, kind, "stream") for place, each in zip(places, (stream, io.BytesIO()), strict=True)),
    )


def _interrupted(rng: Random, source: Path, target: Path) -> None:
    """A call that did not end, and what it left behind, damaged."""
    try:
        ends = (Endpoint.of(place, io.BytesIO(), None, "") for place in (source, target))
        _label(rng, *ends, chunks=1)
    except (Interrupt, tpv.TpvError):
        pass
    for stage in target.parent.glob(".*.partial"):
        files = sorted(stage.iterdir())
        path = rng.choice(files) if files else stage / "state"
        how = rng.randrange(6)
        if how == 0:
            path.unlink(missing_ok=True)
        elif how == 1 and path.suffix == ".json":
            path.write_bytes(m.as_json(m.regrow(rng, json.loads(path.read_text()))))
        elif how == 2:
            made.odd_place(rng, path)
        elif how < 5 and path.is_file():
            path.write_bytes(m.spoil(rng, path.read_bytes()))


# --- tasks of text --------------------------------------------------------------------------------
def text_rows() -> list[dict[str, Any]]:
    """Gold texts as one text, as several, and inside of an object."""
    return [
        {
            "text": f"the sum of {i} and {i + 1}",
            "label": rf"It is \boxed{{{2 * i + 1}}}.",
            "several": [f"#### {2 * i + 1}", "a sum"][: 1 + i % 2],
            "inside": {"text": [str(2 * i + 1)]},
        }
        for i in range(12)
    ]


def _text_data(rng: Random, suffix: str) -> bytes:
    if suffix in (".csv", ".tsv", ".jsonl.gz") or rng.randrange(3) == 0:
        return made.data_of(rng, suffix)
    rows = made.grown(rng, text_rows())
    if suffix == ".json":
        return m.as_json(rows)
    if suffix == ".jsonl":
        return b"\n".join(map(m.as_json, rows))
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(rows), buffer)
    except (pa.ArrowException, AttributeError, TypeError, ValueError, OverflowError):  # no words for it in the format
        return made.data_of(rng, suffix)
    return buffer.getvalue()


def make_texts(rng: Random, folder: Path) -> None:
    suffix = rng.choice(made.SUFFIXES)
    for name in rng.choice((["rows"], ["rows"], ["rows", "test"])):
        if not made.odd_place(rng, folder / f"{name}{suffix}"):
            (folder / f"{name}{suffix}").write_bytes(_text_data(rng, suffix))
    source = TEXT_TASK["source"] | {"train": f"rows{suffix}", "target_column": rng.choice(COLUMNS)}
    if (folder / f"test{suffix}").exists():
        source["test"] = f"test{suffix}"
    tree = TEXT_TASK | {"source": source}
    if not made.odd_place(rng, folder / "own.toml"):
        (folder / "own.toml").write_bytes(made.toml_of(rng, tree) if rng.randrange(3) == 0 else m.as_toml(tree))


COLUMNS = ("label", "label", "several", "inside.text", "inside")


def read_texts(rng: Random, folder: Path) -> None:
    path = next((path for path in folder.iterdir() if path.stem.startswith("rows")), folder / "rows.csv")
    options: dict[str, Any] = rng.choice(
        (
            {"text": "text", "target": "label"},
            {"target": rng.choice(COLUMNS), "template": "{text}"},
            {"text": "text", "target": rng.choice(COLUMNS), "validation": path},
            {"target": "text"},
        )
    )
    task = load_task(folder / "own.toml") if rng.randrange(3) else load_task(path, **options)
    repr(task)
    _ = task.fingerprint
    rows = task.examples("train")
    task.few_shot(2, 0)
    if task.labels:
        return
    made.backbone().encode_targets([row.target for row in rows], task.spec.max_target_length)
    words = [word for word in m.STRINGS if "\ud800" not in word]  # no model says half a character
    said = [rng.choice(rows).target if rng.randrange(2) else rng.choice(words) for _ in rows]
    output = register.output["text"].thing
    table = output.predictions(Texts(said, torch.ones(len(rows)), torch.ones(len(rows))), task, rows)
    scores = output.scores(table)
    for metric in TEXT_METRICS:
        per_example(table, metric)
    assert 0 <= scores.exact_match <= 1


READERS: dict[str, tuple[Callable[[Random, Path], None], Callable[[Random, Path], None]]] = {
    "tuned": (make_tuned, read_tuned),
    "labelled": (make_labelled, read_labelled),
    "texts": (make_texts, read_texts),
}
