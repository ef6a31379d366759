"""`tpv report`: from a run directory to what `tpv.reporting` draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from tpv.errors import TpvError
from tpv.execution.directory import RunDirectory, open_run
from tpv.execution.execute import RESULTS, TIMINGS, write_results
from tpv.execution.tracking import read_energy
from tpv.files import read_parquet
from tpv.progress import duration
from tpv.reporting.compare import write_comparison
from tpv.reporting.page import made_with
from tpv.reporting.records import Row, read_rows
from tpv.reporting.study import FamilyInfo, Study, TaskInfo, write_report
from tpv.reporting.tables import Table
from tpv.studies.cells import cells
from tpv.studies.experiments.transfer import Transfer
from tpv.studies.jobs.base import in_order
from tpv.studies.settings import Config
from tpv.training.recipe import EPOCHS, Recipe


def report_run(folder: Path, out: Path) -> list[Table]:
    """Write the report of a run directory; returns its tables, for the terminal.

    Raises:
        TpvError: not a run directory, or nothing is done in it.
    """
    directory, rows, timings = read_run(folder, out)

    made = {directory.keys(job): job for job in in_order(cell.job for cell in cells(directory.config))}

    def predictions(job: str, task: str) -> pa.Table | None:
        file = made[job].predictions(directory.folder_of(made[job]), task)
        return None if file is None else read_parquet(file)

    return write_report(out, study_of(directory), rows, timings, predictions)


def compare_runs(one: Path, two: Path, out: Path) -> None:
    """Put two run directories side by side.

    Raises:
        TpvError: see `report_run`.
    """
    with TemporaryDirectory() as place:
        (a, rows_a, _), (b, rows_b, _) = (read_run(run, Path(place) / name) for run, name in ((one, "a"), (two, "b")))
    write_comparison(out, (study_of(a), rows_a), (study_of(b), rows_b))


def read_run(folder: Path, out: Path) -> tuple[RunDirectory, list[Row], list[Row]]:
    """A run and its rows, written to `out` on the way."""
    directory = open_run(folder)
    write_results(directory, out)
    rows = read_rows(out / RESULTS)
    timings = read_rows(out / TIMINGS)
    if not rows:
        raise TpvError(f"run directory {folder} has no results yet", fix="`tpv run` makes them")
    return directory, rows, timings


def _training(recipe: Recipe, otherwise: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """A training in words; `otherwise` names the tasks for which keys of it are others."""
    length = f"{recipe.steps} steps" if recipe.steps is not None else f"{recipe.epochs or EPOCHS:g} epochs"
    text = f"{length} of {recipe.batch_size} rows per task, lr {recipe.lr}, select {recipe.select}"
    but = [
        f"{task}: {', '.join(f'{key} {value}' for key, value in keys.items())}"
        for task, keys in (otherwise or {}).items()
    ]
    return "; ".join([text, *but])


def _initializer(config: Config) -> str:
    """The initializer and its parameters, in words."""
    told = ", ".join(f"{name} {value}" for name, value in config.initializer_parameters.items())
    return f"{config.prompt.init} ({told})" if told else config.prompt.init


def study_of(directory: RunDirectory) -> Study:
    """What a report needs to know of a run beyond its rows."""
    config, manifest = directory.config, directory.manifest
    tasks = {}
    for name, about in manifest.tasks.items():
        binary = len(about.labels) == 2
        # the paper says macro-F1 for all; its code takes the positive class of binary tasks (quirk 5)
        metric = "pearson" if about.numbers else "f1" if binary and config.quirks.authors_f1 else "macro_f1"
        tasks[name] = TaskInfo(name, about.labels, about.text_metric or metric, about.positive)
    families = tuple(FamilyInfo(family.name, family.sources, family.targets) for family in config.families)
    quirks = [name for name, on in config.quirks.model_dump().items() if on]
    jobs = in_order(cell.job for cell in cells(config))
    weights, how, device = manifest.model.weights, manifest.model.quantization, manifest.model.device
    facts = [
        ("weights", ", ".join(filter(None, (weights[:12], how, f"{config.model.precision} on {device}")))),
        ("prompt", f"{config.prompt.tokens} tokens, initializer {_initializer(config)}"),
        ("initializations", ", ".join(map(str, config.seeds.starts))),
        ("seeds", f"sample {config.seeds.sample}, order {config.seeds.order}, splits {config.split_seed}"),
        ("sources", ", ".join(config.source_tasks)),
        ("sources' training", _training(config.joint_recipe(), config.sources.per_task)),
        ("targets", ", ".join(config.targets)),
        ("templates", config.style),
        ("which quirks", ", ".join(quirks) or "none"),
        ("texts truncated", directory.cut(jobs) or "none"),
        ("jobs done", f"{sum(map(directory.done, jobs))} of {len(jobs)}"),
    ]
    if config.plugins:
        facts.append(("plugins", ", ".join(config.plugins)))
    for mode in config.vectors.modes:
        trained = f"{_training(config.vector_recipe(mode))}; seeds {', '.join(map(str, config.vector_starts))}"
        facts.append((f"{mode} vectors", trained))
    energy = read_energy(directory.folder)
    if energy:
        kwh, seconds = (sum(row[key] for row in energy) for key in ("kwh", "seconds"))
        carbon = sum(row.get("kg_co2eq", 0.0) for row in energy)
        text = f"{kwh:.4f} kWh over {duration(seconds)}" + (f", {carbon:.4f} kg CO2eq" if carbon else "")
        facts.append(("energy (codecarbon)", text))
    missing = len(jobs) - sum(map(directory.done, jobs))
    return Study(
        config.name,
        manifest.model.name,
        any(config.quirks.model_dump().values()),
        tasks,
        families,
        config.table(Transfer).shots,
        facts,
        made_with(),
        all(about.whole for about in manifest.tasks.values()),
        missing,
    )
