"""Score a prompt on a task's test split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import register
from tpv.reporting.records import Row
from tpv.studies.cells import Cell, metric_rows, row
from tpv.studies.jobs.base import SCORE_BANK, Job, Output, Sizes, Work, save_table

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.studies.lab import Lab
    from tpv.studies.settings import Config


@register.job("score", order=4)
@dataclass(frozen=True)
class Score(Job):
    """Predictions of a prompt (or of an ATTEMPT model) on a task's test split."""

    kind: ClassVar[str] = "score"
    title: ClassVar[str] = "evaluations"
    doing: ClassVar[str] = "scoring"
    of: Any
    task: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.task,)

    def bank_key(self) -> object:
        return self.task

    @classmethod
    def bank_size(cls, config: Config) -> int:
        return SCORE_BANK

    def work(self, sizes: Sizes) -> Work:
        return Work(score_rows=sizes[self.task]["test"])

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        import torch

        from tpv.evaluation.score import evaluate_readers

        parts = [(lab.task(job.task), lab.reader(job.of, job.task)) for job in jobs]
        length = lab.config.model.max_input_length
        with torch.no_grad():
            scores = evaluate_readers(lab.backbone, parts, "test", length, lab.match)
        return [Output(partial(save_table, score.predictions, "predictions.parquet")) for score in scores]

    def predictions(self, folder: Path, task: str) -> Path:
        return folder / "predictions.parquet"

    def rows(self, cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
        yield from metric_rows(cell, key, self.predictions(folder, self.task))
        if cell.coverage and labels[cell.task]:
            said = {word for source in cell.sources for word in labels[source]}
            words = labels[cell.task]
            covered = sum(word in said for word in words) / len(words)
            yield row(cell, key, metric="label_coverage", value=covered, n=len(words))
