"""Compare prompts, and vectors, by their cosines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import register
from tpv.reporting.records import Row
from tpv.studies.cells import Cell, row
from tpv.studies.expressions import Initial
from tpv.studies.jobs.base import Job, Output, save_table

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.prompts.matrix import PromptMatrix
    from tpv.studies.lab import Lab


@register.job("compare", order=6)
@dataclass(frozen=True)
class Compare(Job):
    """Cosines of every pair of prompts, and of their vectors; norms of both. Or of vectors that have no prompt.

    Attributes:
        vectors: tuned prompts (jobs `Train`), or vectors.
        prompts: whether they are tuned prompts, so that the prompts are compared as well.
    """

    kind: ClassVar[str] = "compare"
    version: ClassVar[int] = 3
    title: ClassVar[str] = "comparisons"
    doing: ClassVar[str] = "cosines"
    vectors: tuple[Any, ...]
    prompts: bool

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        return [job._compare(lab) for job in jobs]

    def _compare(self, lab: Lab) -> Output:
        """Cosines of the upper triangle; where half of the rows are dead, of the live rows and of all."""
        import pyarrow as pa

        from tpv.prompts.algebra import cosine_matrix

        rows: list[dict[str, Any]] = []
        for kind, items in self._kinds(lab).items():
            matrix = cosine_matrix(items)
            rows += [
                {"kind": kind, "a": a, "b": b, "cosine": float(matrix[a, b]), "values": items[0].tensor.numel()}
                for a in range(len(items))
                for b in range(a + 1, len(items))
            ]
        if self.prompts:
            inits = [lab.prompt(training.init).norm() for training in self.vectors]
        else:  # vectors without an initialization of their own: beside those they are added to
            each = [lab.prompt(Initial(seed)).norm() for seed in lab.config.seeds.starts]
            inits = [sum(each) / len(each)] * len(self.vectors)
        norms = [
            {"prompt": i, "start": norm, "vector": lab.vector(vector).norm()}
            for i, (norm, vector) in enumerate(zip(inits, self.vectors, strict=True))
        ]

        def save(folder: Path) -> None:
            save_table(pa.Table.from_pylist(rows), "cosines.parquet", folder)
            save_table(pa.Table.from_pylist(norms), "norms.parquet", folder)

        return Output(save)

    def _kinds(self, lab: Lab) -> dict[str, Sequence[PromptMatrix]]:
        """What is compared, by what it is called in the artifact."""
        from tpv.prompts.algebra import SoftPrompt, TaskPromptVector

        vectors = [lab.vector(vector) for vector in self.vectors]
        if not self.prompts:
            return {"vectors": vectors}
        prompts = [lab.prompt(training) for training in self.vectors]
        live = lab.config.live_rows
        if live is None:
            return {"prompts": prompts, "vectors": vectors}
        return {
            "prompts": [SoftPrompt(prompt.tensor[:live], prompt.model, prompt.init) for prompt in prompts],
            "vectors": [TaskPromptVector(vector.tensor[:live], vector.model, vector.components) for vector in vectors],
            "prompts, all rows": prompts,
            "vectors, all rows": vectors,
        }

    def rows(self, cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
        from tpv.files import read_parquet

        for found in read_parquet(folder / "cosines.parquet").to_pylist():
            a, b = self.vectors[found["a"]], self.vectors[found["b"]]
            yield row(
                cell,
                key,
                task=a.tasks_of[0],
                method=_identifier(found["kind"]),
                sources=(*a.tasks_of, *b.tasks_of),
                init_seed=a.vector_seed,
                vector_seed=b.vector_seed,
                metric="cosine",
                value=found["cosine"],
                n=found["values"],
            )
        for found in read_parquet(folder / "norms.parquet").to_pylist():
            vector = self.vectors[found["prompt"]]
            yield row(
                cell,
                key,
                task=vector.tasks_of[0],
                method="vectors",
                sources=vector.tasks_of,
                init_seed=vector.vector_seed,
                metric="norm_ratio",
                value=found["vector"] / found["start"],
                n=1,
            )


def _identifier(kind: str) -> str:
    return {"prompts, all rows": "prompts_all_rows", "vectors, all rows": "vectors_all_rows"}.get(kind, kind)
