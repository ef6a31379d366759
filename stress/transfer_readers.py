"""Readers of `fuzz` for what transfer is made of and leaves behind: libraries of vectors, and folders with ensembles."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import made_files as made
import mutations as m
import torch

import tpv
from tpv.evaluation.ensemble import Ensemble, ProbePart, PromptPart
from tpv.evaluation.probe import DEPTHS, fit_probe
from tpv.evaluation.tuned import TASK_FILE, About, ModelChoice, Tuned
from tpv.outputs.ranking import Calibrator
from tpv.prompts import storage
from tpv.prompts.index import INDEX
from tpv.tasks.spec import build_spec
from tpv.tasks.task import Task


# --- ensembles ------------------------------------------------------------------------------------
@cache
def ensemble_files() -> tuple[dict[str, Any], dict[str, bytes]]:
    """The values of a valid `task.toml`, and the files beside it."""
    backbone = made.backbone()
    prompts = [tpv.SoftPrompt.sample(backbone, num_tokens=2, seed=seed) for seed in (0, 1)]
    labels = made.TASK["labels"]
    sure = Calibrator(labels=labels, temperature=1.5, bias=(-0.25, 0.25), rows=12)
    bank = torch.stack([prompts[0].tensor])
    states = backbone.hidden(bank, torch.zeros(6, dtype=torch.long), [(5, 6, 7)] * 3 + [(8, 9)] * 3, DEPTHS)
    probe = fit_probe(states + torch.randn(states.shape, generator=torch.Generator().manual_seed(0)), [0, 1] * 3, 2)
    parts = (PromptPart(prompts[0]), PromptPart(prompts[1], sure), ProbePart(probe), ProbePart(probe, prompts[0]))
    with tempfile.TemporaryDirectory() as place:
        about = About(model=ModelChoice(name="mini"), max_input_length=64, calibrator=sure)
        Tuned(Task(build_spec(made.TASK, where="task"), {}), Ensemble(parts), about).save(Path(place))
        tree = tomllib.loads((Path(place) / TASK_FILE).read_text())
        files = {path.name: path.read_bytes() for path in Path(place).iterdir() if path.name != TASK_FILE}
    return tree, files


def make_ensemble(rng: Random, folder: Path) -> None:
    tree, files = ensemble_files()
    place = folder / "tuned"
    place.mkdir()
    if not made.odd_place(rng, place / TASK_FILE):
        (place / TASK_FILE).write_bytes(made.toml_of(rng, tree) if rng.randrange(3) else m.as_toml(tree))
    for name, content in files.items():
        how = rng.randrange(30)
        if how == 0 or (how == 1 and made.odd_place(rng, place / name)):
            continue
        other = {2: lambda content=content: rng.choice((m.spoil, m.reheaded))(rng, content)}
        other |= {3: lambda: rng.choice(list(files.values()))}
        (place / name).write_bytes(other[how]() if how in other else content)


def read_ensemble(rng: Random, folder: Path) -> None:
    tuned = Tuned.load(folder / "tuned")
    if not isinstance(tuned.prompt, Ensemble):
        return
    again = folder / "again"
    again.mkdir()
    tuned.save(again)
    other = Tuned.load(again).prompt
    assert isinstance(other, Ensemble)
    assert other.digest == tuned.prompt.digest, "what was written is not what is read"
    given = {"max_input_length": tuned.about.max_input_length, "calibrator": tuned.about.calibrator}
    table = tpv.predict(made.backbone(), tuned.task, tuned.prompt, ["the plot is dull"], **given)
    assert set(table["predicted"].to_pylist()) <= set(tuned.task.labels)
    assert 0 <= table["probability"][0].as_py() <= 1 + 1e-9


# --- libraries ------------------------------------------------------------------------------------
@cache
def vector_files() -> tuple[dict[str, bytes], bytes]:
    """Files of a library with its index: vectors of two lengths, a merge, and a prompt, which is none."""
    backbone = made.backbone()
    init, *others = (tpv.SoftPrompt.sample(backbone, num_tokens=2, seed=seed) for seed in range(3))
    one, two = (init.tuned_to(other.tensor, name) - init for other, name in zip(others, ("a", "b"), strict=True))
    long = tpv.SoftPrompt.sample(backbone, num_tokens=3, seed=3)
    items = {"a": one, "b": two, "merged": tpv.merge([one, two], "ties"), "prompt": init}
    items["long"] = long.tuned_to(long.tensor + 1, "long") - long
    files = {f"{name}.safetensors": storage.saved_bytes(item) for name, item in items.items()}
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / name).write_bytes(content)
        tpv.Library(place).describe()
        return files, (Path(place) / INDEX).read_bytes()


def make_library(rng: Random, folder: Path) -> None:
    files, index = vector_files()
    place = folder / "vectors"
    place.mkdir()
    for name, content in files.items():
        spot = place / rng.choice(("", "", "inner")) / name
        spot.parent.mkdir(exist_ok=True)
        how = rng.randrange(12)
        if how == 0 and made.odd_place(rng, spot):
            continue
        spoilt = {1: m.spoil, 2: m.reheaded}.get(how)
        spot.write_bytes(content if spoilt is None else spoilt(rng, content))
    how = rng.randrange(4)
    if how == 0:
        made.odd_place(rng, place / INDEX)
    elif how == 1:
        (place / INDEX).write_bytes(m.spoil(rng, index))
    elif how == 2:
        (place / INDEX).write_bytes(m.as_json(m.regrow(rng, json.loads(index))))


def read_library(rng: Random, folder: Path) -> None:
    library = tpv.Library(folder / "vectors")
    table = library.describe(digests=bool(rng.randrange(2)))
    assert table["name"].to_pylist() == library.names
    for name in library:
        vector = library[name]  # what the index says wrongly is found when the file is read
        assert torch.isfinite(vector.tensor).all()
    library.filter(num_tokens=2)
    if len(library) > 1 and len({library[name].num_tokens for name in library}) == 1:
        tpv.merge(list(library.values()), "mean")


READERS: dict[str, tuple[Callable[[Random, Path], None], Callable[[Random, Path], None]]] = {
    "ensembles": (make_ensemble, read_ensemble),
    "libraries": (make_library, read_library),
}
