"""Search the scale of a sum of vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import register
from tpv.reporting.records import Row
from tpv.studies.cells import Cell, metric_rows, row
from tpv.studies.expressions import Initial
from tpv.studies.jobs.base import Job, Output, Sizes, Work, save_table

if TYPE_CHECKING:
    import pyarrow as pa

    from tpv.progress import Callback
    from tpv.studies.lab import Lab


def answers(table: pa.Table) -> pa.Table:
    """`example`, `gold`, `said` and `hit` (exact match) of a table of predictions."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from tpv.outputs.scores import said_column
    from tpv.outputs.text import per_example

    if "said" in table.column_names:
        said = said_column(table)
        hit = pc.fill_null(pc.equal(table["gold"], said), False).cast("float64")
    else:
        said, hit = table["predicted"], pa.array(per_example(table, "exact_match"), pa.float64())
    found = table.select(["example", "gold"]).replace_schema_metadata()
    return found.append_column("said", said).append_column("hit", hit)


@register.job("search", order=5)
@dataclass(frozen=True)
class Search(Job):
    """The best scale for a sum of vectors: a grid on all validation splits, then all test splits."""

    kind: ClassVar[str] = "search"
    doing: ClassVar[str] = "lambda search"
    init: Initial
    vectors: tuple[Any, ...]
    scales: tuple[float, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(task for vector in self.vectors for task in vector.tasks_of)

    def plan_title(self) -> str:
        return "pair searches" if len(self.vectors) == 2 else f"searches for {len(self.vectors)} vectors"

    def work(self, sizes: Sizes) -> Work:
        tasks = [sizes[task] for task in self.reads]
        grid = len(self.scales) * sum(size["validation"] for size in tasks)
        return Work(score_rows=grid + sum(size["test"] for size in tasks))

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        return [job._search(lab) for job in jobs]

    def _search(self, lab: Lab) -> Output:
        import pyarrow as pa

        from tpv.evaluation.score import evaluate
        from tpv.evaluation.search import score_grid

        init, length = lab.prompt(self.init), lab.config.model.max_input_length
        total = sum((lab.vector(vector) for vector in self.vectors[1:]), lab.vector(self.vectors[0]))
        tasks = [lab.task(name) for name in self.reads]
        prompts = [total.apply(init, scale) for scale in self.scales]
        found = score_grid(lab.backbone, tasks, prompts, self.scales, match=lab.match, max_input_length=length)
        best = self.scales.index(found.scale)
        tested = evaluate(
            lab.backbone, tasks, [prompts[best]] * len(tasks), "test", max_input_length=length, match=lab.match
        )
        tables = [
            answers(scores.predictions)
            .append_column("task", pa.array([name] * scores.n))
            .append_column("scale", pa.array([scale] * scores.n))
            for name, every in zip(self.reads, found.scores, strict=True)
            for scale, scores in zip(self.scales, every, strict=True)
        ]
        grid = pa.concat_tables(tables)

        def save(folder: Path) -> None:
            save_table(grid, "grid.parquet", folder)
            for i, scores in enumerate(tested):
                save_table(scores.predictions, f"test-{i}.parquet", folder)

        return Output(save, {"scale": found.scale})

    def predictions(self, folder: Path, task: str) -> Path:
        return folder / f"test-{self.reads.index(task)}.parquet"

    def rows(self, cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
        import pyarrow.compute as pc

        from tpv.files import read_parquet
        from tpv.outputs.scores import said_column

        grid = read_parquet(folder / "grid.parquet")
        if "hit" not in grid.column_names:  # as stored before there were text tasks
            hit = pc.fill_null(pc.equal(grid["gold"], said_column(grid)), False).cast("float64")
            grid = grid.append_column("hit", hit)
        parts = grid.group_by(["task", "scale"], use_threads=False)
        for part in parts.aggregate([("hit", "mean"), ("hit", "count")]).to_pylist():
            yield row(
                cell,
                key,
                task=part["task"],
                scale=part["scale"],
                split="validation",
                metric="exact_match",
                value=part["hit_mean"],
                n=part["hit_count"],
            )
        best = json.loads((folder / "record.json").read_text())["scale"]  # what the test predictions were made at
        for i, task in enumerate(self.reads):
            yield from metric_rows(cell, key, folder / f"test-{i}.parquet", task=task, scale=best)
