"""Registered methods as rows of a study: planned, run, scored as the library scores them, reported with their cost."""

import re
import statistics
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
from places import CONFIGS, ROOT
from small_runs import go, rows_of, tiny

import tpv
from tpv.execution.directory import open_run
from tpv.execution.reporting import report_run
from tpv.methods.dtvg import DynamicGrouping
from tpv.methods.mpt import MultitaskPromptTuning
from tpv.methods.sources import TrainedSource, adapt
from tpv.methods.spot_retrieval import SpotRetrieval
from tpv.studies.cells import cells
from tpv.studies.config import read_config
from tpv.studies.jobs.train import Train
from tpv.studies.lab import Lab
from tpv.studies.settings import restored
from tpv.studies.vectors import source_prompt

SCRIPT = ROOT / "benchmarks" / "methods.py"
SOURCES = ["mpt", "dtvg", "attempt_single", {"method": "spot_retrieval", "top": 2, "early": 1}]
PLAIN = ["residual", {"method": "low_rank", "rank": 2}, {"method": "ultra_low", "dimensions": 3, "align": False}]
P, H, S = 3, 128, 3
TRANSFER = {
    "shots": [0, 4],
    "batch_size": [[4, 2]],
    "attempt_schedule": [[4, 2, 1]],
    "baseline_inits": 1,
    "training": {"steps": 2, "select": "last"},
    "attempt_training": {"select": "last"},
    "methods": ["random", *SOURCES, *PLAIN],
    "pool": "all",
}
FAMILIES = [
    {"name": "f", "sources": ["mini/mnli", "mini/qnli"], "targets": ["mini/snli"]},
    {"name": "g", "sources": ["mini/sst2"]},
]


def config(**changes):
    given = {"experiments": ["transfer"], "families": FAMILIES, "prompt": {"tokens": P}, "transfer": TRANSFER}
    return tiny(**(given | changes))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods") / "run"
    assert not go(config(), folder).failed
    return folder


def test_every_method_is_a_row_at_the_shots_it_can_have(done):
    found = {(row.method, row.shots, row.init_seed) for row in rows_of(done) if row.metric == "exact_match"}
    zero = {"random", "mpt", "attempt_single", "residual", "low_rank", "ultra_low"}  # the others need the target's rows
    few = {"mpt", "dtvg", "attempt_single", "spot_retrieval"}  # from so many initializations as `baseline_inits` says
    every = {"random", "residual", "low_rank", "ultra_low", *few}
    assert {(method, shots) for method, shots, _ in found} == {(one, 0) for one in zero} | {(one, 4) for one in every}
    assert {method for method, _, seed in found if seed == 1} == every - few
    pools = {row.sources for row in rows_of(done) if row.method in few}
    assert pools == {("mini/mnli", "mini/qnli", "mini/sst2")}


@pytest.mark.parametrize(
    ("name", "method"),
    [("mpt", MultitaskPromptTuning()), ("dtvg", DynamicGrouping()), ("spot_retrieval", SpotRetrieval(top=2, early=1))],
)
def test_a_row_is_what_the_library_makes(done, name, method):
    directory = open_run(done)
    lab = Lab(directory.config)
    lab.artifacts = directory
    job = next(cell.job.of for cell in cells(directory.config) if cell.method == name and cell.shots == 4)
    trained = [source_prompt(directory.config, task, 0) for task in directory.config.source_tasks]
    sources = [TrainedSource(lab.data(one.data), lab.prompt(one.init), lab.prompt(one)) for one in trained]
    (prompt,) = adapt(
        lab.backbone,
        lab.data(job.data),
        lab.prompt(job.init),
        sources,
        method,
        job.recipe,
        source_recipe=directory.config.joint_recipe(),
        callback=lambda _: None,
    )
    assert (lab.prompt(job).tensor - prompt.tensor).abs().max() < 1e-4
    assert (prompt.tensor - lab.prompt(job.init).tensor).abs().max() > 0.01


def test_what_each_method_costs_stands_beside_the_scores(done, tmp_path):
    trained = {row.method: row.value for row in rows_of(done) if row.metric == "trained"}
    attention = 2 * P * H + 2 * H
    assert trained == {
        "random": P * H,
        "spot_retrieval": P * H,
        "mpt": P * H + P + H,
        "dtvg": P * H + P + S * P,
        "attempt_single": P * H + attention,
        "residual": P * H + (H * 100 + 100) + (100 * H + H) + 2 * H,
        "low_rank": 2 * (P + H),
        "ultra_low": 3 * P,
    }
    tables = {table.name: table for table in report_run(done, tmp_path / "report")}
    names = [row[0] for row in tables["transfer_costs"].rows]
    assert {"MPT", "DTVG", "ATTEMPT, one target", "SPoT retrieval (early 1, top 2)"} <= set(names)
    assert all("–" not in map(str, row) for row in tables["transfer_costs"].rows)
    scores = next(table for name, table in tables.items() if name.startswith("table4"))
    assert "ultra-low-dimensional (align False, dimensions 3)" in [row[1] for row in scores.rows]
    missing = scores.note.partition(" scores present")[0].rpartition(". ")[2].split(" of ")
    assert missing[0] == missing[1]


def test_the_page_of_results(done, tmp_path):
    """Means over targets and initializations, calculated here from the rows; a run of something else is refused."""
    line = [sys.executable, SCRIPT, done, "--out", tmp_path / "methods.md"]
    subprocess.run(line, check=True, capture_output=True)
    page = (tmp_path / "methods.md").read_text(encoding="utf-8")
    cells = next(re.split(r" \| ", row) for row in page.splitlines() if row.startswith("| low rank"))
    found = [row for row in rows_of(done) if (row.metric, row.method) == ("macro_f1", "low_rank")]
    means = [statistics.fmean(100 * row.value for row in found if row.shots == shots) for shots in (0, 4)]
    assert [cells[1], cells[3]] == [f"{mean:.1f}" for mean in means]
    assert f"| low rank (rank 2) | {2 * (P + H):,} |" in page
    failed = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1


def test_a_finished_run_is_not_run_again_and_its_config_reads_back(done):
    again = go(config(), done)
    assert (again.ran, again.failed) == (0, {})
    kept = open_run(done).config
    assert restored(kept.model_dump(mode="json")) == kept


def test_reparameterized_prompts_are_modes_of_vectors(tmp_path):
    modes = ["residual", "ultra_low"]
    settings = config(
        experiments=["combination"],
        vectors={"modes": modes},
        combination={"scale_step": 0.5, "sums": [["mini/mnli", "mini/sst2"]]},
    )
    assert not go(settings, tmp_path / "run").failed
    rows = [row for row in rows_of(tmp_path / "run") if row.method == "plain_sum" and row.metric == "exact_match"]
    assert {row.mode for row in rows} == {"ordinary", *modes}


def test_gradient_ascent_is_beside_subtraction(tmp_path):
    methods = ["sum_own", "sum_ascent", "tuned_ascent"]
    negation = {"scales": [0, 1, 2], "methods": methods, "ascent_steps": 2, "outside": True}
    settings = config(experiments=["negation"], vectors={"modes": ["composable"]}, negation=negation)
    assert not go(settings, tmp_path / "run").failed
    rows = [row for row in rows_of(tmp_path / "run") if row.metric == "exact_match"]
    pairs = {
        ("mini/mnli", "mini/qnli"),
        ("mini/qnli", "mini/mnli"),
        ("mini/mnli", "mini/sst2"),
        ("mini/qnli", "mini/sst2"),
    }
    assert {row.sources for row in rows} == pairs | {("mini/sst2", "mini/mnli")}
    for mode, method in (("ordinary", "sum_own"), ("composable", "sum_own"), ("ordinary", "sum_ascent")):
        assert {row.scale for row in rows if (row.mode, row.method) == (mode, method)} == {0.0, 1.0, 2.0}
    trainings = {
        (cell.scale, cell.job.of.recipe.steps) for cell in cells(settings) if cell.method == "sum_ascent" and cell.scale
    }
    assert trainings == {(1.0, 2), (2.0, 4)}
    whole = {
        (row.method, row.sources, row.task, row.init_seed): row.value
        for row in rows
        if row.scale == 0 and row.mode == "ordinary"
    }
    for (method, *about), value in whole.items():  # nothing is forgotten at factor 0
        if method == "sum_ascent":
            assert value == whole["sum_own", *about]
    tables = {table.name: table for table in report_run(tmp_path / "run", tmp_path / "report")}
    assert {row[0] for row in tables["negation_costs"].rows} == {"sum, gradient ascent", "tuned, gradient ascent"}
    assert "control, another family" in {row[3] for row in tables["negation"].rows}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["spot_retrievel"], "transfer.methods.0: unknown value 'spot_retrievel', did you mean 'spot_retrieval'"),
        ([{"method": "mpt", "wait": 1}], "unknown parameter 'wait', did you mean 'weight'"),
        ([{"method": "residual", "bottleneck": 0}], "greater than or equal to 1, got 0"),
        ([{"method": "spot"}], "'spot' has no parameters here, write its name alone"),
        ([{"weight": 1}], "must be the name of a method, or a table with the name as `method`"),
        (["ascent"], "unknown value 'ascent'"),
        (["portable"], "unknown value 'portable'"),
        (["mpt", {"method": "mpt"}], "repeats itself"),
        (["low_rank"], "transfer.methods: rank of low_rank; expected at most 3; got 4"),
        ([{"method": "spot_retrieval", "top": 4}], "expected at most 3, the number of sources; got 4"),
    ],
)
def test_methods_that_do_not_fit(methods, message):
    with pytest.raises(tpv.TpvError, match=message):
        config(transfer=TRANSFER | {"methods": methods})


def test_the_page_of_methods():
    """Its code runs; its table leaves no cell empty and has every registered method."""
    text = (ROOT / "docs" / "methods.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    found: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tpv.TpvWarning)
        exec(block, found)
    assert found["codes"].shape == (5, 4)
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    assert all(cell.strip() for row in rows for cell in row)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    builtin = [entry for entry in tpv.register.method if entry.builtin and entry.name != "prompt_tuning"]
    assert named >= {entry.name for entry in builtin}
    assert {one if isinstance(one, str) else one.method for one in shipped().methods} <= named


def shipped():
    return read_config(CONFIGS / "methods.toml").transfer


def test_training_on_the_target_first_is_a_job_that_others_share():
    """DTVG's first stage is the row `random`: one job."""
    found = {cell.method: cell.job.of for cell in cells(config()) if cell.shots == 4 and cell.init_seed == 0}
    assert found["dtvg"].own == found["random"]
    assert found["spot_retrieval"].own == replace(found["random"], recipe=found["spot_retrieval"].own.recipe)
    assert type(found["random"]) is Train
