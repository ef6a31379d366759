"""A study small enough to run in seconds."""

from places import CONFIGS

from tpv.execution.execute import run
from tpv.execution.progress import Reporter
from tpv.reporting.records import read_rows
from tpv.studies.config import build_config

TINY = {
    "name": "tiny",
    "model": {"name": "mini", "device": "cpu"},
    "prompt": {"tokens": 3},
    "seeds": {"inits": 2},
    "families": [{"name": "f", "sources": ["mini/mnli", "mini/qnli"], "targets": ["mini/snli"]}],
    "sources": {"training": {"steps": 2, "batch_size": 2, "select": "last"}},
    "combination": {"scale_step": 0.5},
    "transfer": {
        "shots": [0, 4],
        "batch_size": [[4, 2]],
        "attempt_schedule": [[4, 2, 1]],
        "baseline_inits": 1,
        "training": {"steps": 2, "select": "last"},
        "attempt_training": {"select": "last"},
    },
    "negation": {"scales": [0, 1], "methods": ["sum_own"]},
    "cost": {"steps": 1},
    "limits": {"train": 20, "validation": 10, "test": 12},
    "run": {"energy": False},
}


def tiny(**changes):
    return build_config(TINY | changes, where="config")


def go(config, folder, **options):
    return run(config, folder, reporter=Reporter, **options)


def rows_of(folder):
    return read_rows(folder / "results.parquet")


def write_config(path, experiments='["sources", "combination"]', more=""):
    path.write_text(f'extends = "{CONFIGS}/smoke.toml"\nname = "killed"\nexperiments = {experiments}\n{more}')
    return path
