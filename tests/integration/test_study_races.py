"""Races for the best start as rows of a study's transfer tables."""

import shutil

import pytest
from small_runs import TINY, go, rows_of, tiny

import tpv
from tpv.errors import TpvError
from tpv.execution.reporting import report_run
from tpv.files import read_parquet
from tpv.reporting.records import read_rows
from tpv.transfers.problem import LEVELS, Level

FAMILIES = [{"name": "f", "sources": ["mini/sst2"], "targets": ["mini/imdb"]}]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setitem(LEVELS, "quick", Level("quick", sources=1, folds=2, rounds=(0.1,)))


def config(**changes):
    table = {**TINY["transfer"], "shots": [0, 12], "batch_size": [[12, 2]], "attempt_schedule": [[12, 2, 1]], **changes}
    return tiny(
        families=FAMILIES,
        experiments=["transfer"],
        transfer=table,
        limits={"train": 40, "test": 20},
        seeds={"inits": 1},
    )


def test_a_race_gives_a_row_for_the_choice_and_for_each_candidate(tmp_path):
    """The choice's score is that of `tpv.transfer` itself, the paper's rows are beside it, and nothing is at 0 shots."""
    folder = tmp_path / "run"
    go(config(methods=["random", "transfer"]), folder)
    rows = [row for row in rows_of(folder) if row.metric == "accuracy"]
    by_method = {(row.method, row.shots): row for row in rows}
    names = {"transfer", "random", *(f"transfer_{name}" for name in ("instruction", "random", "source", "probe"))}
    assert names <= {method for method, _ in by_method}
    assert ("transfer_merged", 12) not in by_method  # one source cannot be merged
    assert {shots for method, shots in by_method if method.startswith("transfer")} == {12}
    exact = {row.method: row.value for row in rows_of(folder) if row.metric == "exact_match" and row.shots == 12}
    assert exact["transfer"] == by_method["transfer", 12].value  # it always answers with a label

    backbone = tpv.load_backbone("mini", device="cpu")
    init = tpv.SoftPrompt.sample(backbone, 3, seed=0)
    limits = {"train": 40, "test": 20}
    source = tpv.load_task("mini/sst2", seed=0).limited(limits, 0)
    recipe = tpv.Recipe(steps=2, batch_size=2, select="last")
    vector = tpv.fit(backbone, source, init, recipe, callback=lambda _: None) - init
    target = tpv.load_task("mini/imdb", seed=0).limited(limits, 0)
    result = tpv.transfer(
        backbone, target, {"mini/sst2": vector}, shots=12, budget="quick", seed=0, callback=lambda _: None
    )
    scores = tpv.evaluate(backbone, target, result.answerer, "test", calibrator=result.calibrator)
    assert _choice(folder)["predicted"].to_pylist() == scores.predictions["predicted"].to_pylist()
    report_run(folder, folder)
    assert "transfer probe" in (folder / "report.md").read_text()


def _choice(folder):
    places = [
        path for path in folder.rglob("predictions.parquet") if (path.parent / "candidate_probe.parquet").exists()
    ]
    (place,) = places
    return read_parquet(place)


def test_vectors_of_a_folder_join_the_sources_and_need_no_training(tmp_path):
    """A source that the folder holds is not trained again, and a vector that changes is told."""
    backbone = tpv.load_backbone("mini", device="cpu")
    init = tpv.SoftPrompt.sample(backbone, 3, seed=1)
    library = tmp_path / "library" / "mini"
    library.mkdir(parents=True)
    for name, seed in (("sst2", 2), ("yelp", 3)):
        other = tpv.SoftPrompt.sample(backbone, 3, seed=seed)
        (init.tuned_to(other.tensor, f"mini/{name}") - init).save(tmp_path / "library" / f"{name}.safetensors")
    settings = config(methods=["transfer"], candidates=["source", "merged"], shots=[12])
    settings = settings.model_copy(update={"library": str(tmp_path / "library")})
    go(settings, tmp_path / "run")
    rows = [row for row in rows_of(tmp_path / "run") if row.metric == "accuracy"]
    assert {row.method for row in rows} == {"transfer", "transfer_source", "transfer_merged"}
    assert set(rows[0].sources) == {"mini/sst2", "sst2", "yelp"}
    shutil.rmtree(tmp_path / "library")  # a report reads what the run found, not the vectors again
    report_run(tmp_path / "run", tmp_path / "report")
    again = [row for row in read_rows(tmp_path / "report" / "results.parquet") if row.metric == "accuracy"]
    assert again == rows


def test_what_cannot_race_is_refused(tmp_path):
    with pytest.raises(TpvError, match=r"candidates.*unknown value 'prob', did you mean 'probe'"):
        config(methods=["transfer"], candidates=["prob"])
    with pytest.raises(TpvError, match="budget"):
        config(methods=["transfer"], budget="slow")
    (why,) = go(config(methods=["transfer"], shots=[2]), tmp_path / "run").failed.values()
    assert "at least two of each label" in why
