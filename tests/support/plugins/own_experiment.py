"""An experiment in one file, outside of tpv: every source vector at several scales."""

from typing import ClassVar

from pydantic import Field

import tpv
from tpv.reporting.page import Chapter, Section
from tpv.reporting.results import cell, not_run, where
from tpv.reporting.tables import Table
from tpv.studies.cells import Cell
from tpv.studies.expressions import Initial, blend
from tpv.studies.jobs.score import Score
from tpv.studies.tables import Settings
from tpv.studies.vectors import source_prompt


class Scaling(Settings):
    """The scales to try."""

    scales: tuple[float, ...] = Field((0.5, 1.0), min_length=1)


@tpv.register.experiment("scaling", parameters=Scaling)
class ScalingExperiment:
    """Every source vector on its own initialization, at several scales."""

    title: ClassVar[str] = "Vectors at several scales"
    plan_split: ClassVar[tuple[str, ...]] = ("method",)

    @staticmethod
    def cells(config):
        for task in config.source_tasks:
            for seed in config.seeds.starts:
                for scale in config.table(Scaling).scales:
                    prompt = blend(Initial(seed), [(scale, source_prompt(config, task, seed))])
                    yield Cell("scaling", Score(prompt, task), "scaled", task, (task,), seed, scale=scale)

    @staticmethod
    def section(results):
        rows = results.of("scaling", "exact_match")
        if not rows:
            return Chapter([Section(ScalingExperiment.title, not_run("scaling"))])
        scales = sorted({row.scale for row in rows})
        body = [
            (results.study.short(task), *(cell(where(rows, task=task, scale=scale)) for scale in scales))
            for task in results.in_order(row.task for row in rows)
        ]
        table = Table("Exact match by scale", ("task", *(f"{scale:g}" for scale in scales)), body, name="scaling")
        return Chapter([Section(ScalingExperiment.title, "One vector, many scales.", tables=[table])])
