"""`tpv quickstart`: a packaged config through the one engine, and a short page made from its rows."""

from __future__ import annotations

import time
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpv.execution.directory import open_run
from tpv.execution.execute import RESULTS
from tpv.execution.execute import run as run_study
from tpv.execution.progress import Reporter
from tpv.files import staged_folder
from tpv.reporting import quickstart as page
from tpv.reporting.records import Row, read_rows, write_rows
from tpv.studies.cells import cells
from tpv.studies.config import build_config
from tpv.studies.lab import Lab
from tpv.studies.settings import Config

if TYPE_CHECKING:
    from rich.console import Console


def settings() -> dict[str, Any]:
    """The values of the packaged config."""
    return tomllib.loads(files("tpv.studies").joinpath("quickstart.toml").read_text(encoding="utf-8"))


def config_of(values: dict[str, Any], seed: int) -> Config:
    """The quickstart's config with other seeds."""
    count = values["seeds"]["inits"]
    seeds = {"inits": [seed + i for i in range(count)], "sample": seed, "order": seed}
    return build_config(values | {"seeds": seeds}, where="config of the quickstart")


def run(out: Path, *, seed: int, console: Console, values: dict[str, Any] | None = None) -> list[Row]:
    """Run the whole demonstration into folder `out`; a run that was interrupted resumes.

    Args:
        values: another config than the packaged one.

    Returns:
        The rows of `results.parquet`.

    Raises:
        TpvError: `out` cannot be written, or holds a quickstart with another seed.
    """
    started = time.perf_counter()
    config = config_of(settings() if values is None else values, seed)
    outcome = run_study(config, out / "run", reporter=Reporter)
    for job, error in outcome.failed.items():
        console.print(f"failed: {job.kind}: {error}", markup=False)
    rows = read_rows(out / "run" / RESULTS)
    with staged_folder(out) as stage:
        _save(config, out / "run", stage)
        write_rows(rows, stage / RESULTS)
        tables = page.write(rows, stage / "report.html", seconds=time.perf_counter() - started)
    for table in tables:
        console.print(table.as_rich())
    return rows


def _save(config: Config, folder: Path, stage: Path) -> None:
    """The initializations and the source tasks' vectors, as files of their own."""
    lab = Lab(config)
    lab.artifacts = open_run(folder)
    (stage / "vectors").mkdir()
    (stage / "inits").mkdir()
    for cell in cells(config):
        if cell.experiment != "sources" or cell.method != "tuned":
            continue
        training: Any = cell.job
        init = lab.prompt(training.of.init)
        init.save(stage / "inits" / f"init{cell.init_seed}.safetensors")
        name = cell.task.rpartition("/")[2]
        lab.vector(training.of).save(stage / "vectors" / f"{name}-init{cell.init_seed}.safetensors")
