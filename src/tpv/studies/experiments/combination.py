"""Sums of source vectors, and other merges, on the tasks they are of (RQ2, figures 4, 8)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from tpv.errors import TpvError
from tpv.evaluation.grid import scale_grid
from tpv.registry import register
from tpv.reporting.intervals import Group
from tpv.reporting.page import Chapter
from tpv.reporting.records import ORDINARY, as_json
from tpv.reporting.results import Results, unique, where
from tpv.reporting.sums import NAME, plain_rows, section, summed, sums
from tpv.studies import cells
from tpv.studies.expressions import Initial, Merged, Zeros, blend
from tpv.studies.jobs.score import Score
from tpv.studies.jobs.search import Search
from tpv.studies.modes import mode_of
from tpv.studies.settings import Config
from tpv.studies.tables import Distinct, MergeChoice, Settings, Whole
from tpv.studies.vectors import modes_of, source_prompt, trained_vector


class Combination(Settings):
    """Sums of source vectors.

    Attributes:
        sizes: how many vectors are added, 2 for pairs.
        sums: add these tasks' vectors instead of all combinations of `sizes`.
        scale_step: step of the grid of lambdas from 0 to 1.
        inits: run from this many of the initializations; 0 for all.
        merges: other ways to merge the same vectors, each a name from `tpv registry merge`, or a table with the name as
            `method` and its parameters. Each adds rows to the results.
    """

    sizes: Annotated[tuple[Annotated[int, Field(ge=2, strict=True)], ...], Field(min_length=1), Distinct] = (2,)
    sums: tuple[Annotated[tuple[str, ...], Field(min_length=2), Distinct], ...] = ()
    scale_step: Annotated[float, Field(ge=0.001, le=1, strict=True)] = 0.05
    inits: Whole = 0
    merges: tuple[MergeChoice, ...] = ()

    @property
    def scales(self) -> tuple[float, ...]:
        return scale_grid(self.scale_step)

    @field_validator("scale_step")
    @classmethod
    def _divides_one(cls, value: float) -> float:
        try:
            scale_grid(value)
        except TpvError:
            raise ValueError(f"scale_step must divide 1, is {value}") from None
        return value

    def chosen(self, tasks: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The tasks of each sum."""
        return list(self.sums) or [chosen for size in self.sizes for chosen in combinations(tasks, size)]


@register.experiment(NAME, parameters=Combination, order=40)
class CombinationExperiment:
    """All sums of two (or more) source vectors, with a search for lambda; vectors of other modes as they are."""

    title: ClassVar[str] = "Sums of vectors (figures 4 and 8)"

    @staticmethod
    def cells(config: Config) -> Iterator[cells.Cell]:
        """For each sum and initialization: the search, plain sums of every mode, and the merges."""
        settings = config.table(Combination)
        for chosen in settings.chosen(config.source_tasks):
            for seed in config.seeds.first(settings.inits):
                vectors = tuple(source_prompt(config, task, seed) for task in chosen)
                job = Search(Initial(seed), vectors, settings.scales)
                yield cells.Cell(NAME, job, "sum", sources=chosen, init_seed=seed)
                if modes_of(config, seed):
                    yield from _plain_sums(config, chosen, seed)
                for merge in settings.merges:
                    yield from _merged(config, merge, chosen, seed)

    @staticmethod
    def section(results: Results) -> Chapter:
        """All sums as bars and tables, and those that keep all their tasks."""
        return Chapter([section(results, CombinationExperiment.title)])

    @staticmethod
    def groups(results: Results) -> Iterator[Group]:
        """The scores that get an interval: the smallest and the largest sums; plain ones, the largest."""
        study = results.study
        found, plain = sums(results), plain_rows(results)
        sizes = {len(each.tasks) for each in found} | {summed(row) for rows in plain.values() for row in rows}
        shown = {min(sizes), max(sizes)} if sizes else set()  # sums of every size would be hundreds
        for each in found:
            if len(each.tasks) in shown:
                for task, rows in zip(each.tasks, each.scores, strict=True):
                    yield Group("sum", task, study.joined(each.tasks), "exact_match", rows)
        for kind, rows in plain.items():
            for sources in unique(row.sources for row in rows if summed(row) == max(shown)):
                for task in sources:
                    mine = where(rows, sources=sources, task=task)
                    yield Group(study.named(kind), task, study.joined(sources), "exact_match", mine)

    @staticmethod
    def left_out(config: Config) -> list[str]:
        """Sums of more vectors than there are."""
        settings, count = config.table(Combination), len(config.source_tasks)
        return [] if settings.sums else [f"sums of {size} vectors" for size in settings.sizes if size > count]

    @staticmethod
    def mistakes(config: Config) -> Iterator[str]:
        """What does not fit the rest of the config."""
        for chosen in config.table(Combination).sums:
            for task in chosen:
                if task not in config.source_tasks:
                    yield f"combination.sums: {task!r} is not a source task"


def _plain_sums(config: Config, chosen: tuple[str, ...], seed: int) -> Iterator[cells.Cell]:
    """A sum with lambda 1 and no search, for vectors of every mode, scored on each of its tasks.

    Ordinary vectors come from one initialization, which they share: on that one, and on the next.
    """
    seeds = config.seeds.starts
    other = seeds[(seeds.index(seed) + 1) % len(seeds)]
    settings: list[tuple[str, bool, Any, int]] = [(ORDINARY, True, Initial(seed), seed)]
    settings += [(ORDINARY, False, Initial(other), other)] * (other != seed)
    for mode in config.vectors.modes:
        about = mode_of(mode)
        settings.append((mode, False, Initial(other), other))
        if about.home:
            settings.append((mode, True, Zeros(), seed))
        elif about.kind == "prompt" and other != seed:
            settings.append((mode, True, Initial(seed), seed))
    for mode, at_home, base, begin in settings:
        prompt = blend(base, [(1.0, trained_vector(config, mode, task, seed)) for task in chosen])
        for task in chosen:
            yield cells.Cell(
                NAME, Score(prompt, task), "plain_sum", task, chosen, begin, None, 1.0, seed, mode=mode, home=at_home
            )


def _merged(config: Config, merge: MergeChoice, chosen: tuple[str, ...], seed: int) -> Iterator[cells.Cell]:
    """The same vectors merged otherwise, on the initialization they come from; those of other modes on the next."""
    seeds = config.seeds.starts
    other = seeds[(seeds.index(seed) + 1) % len(seeds)]
    told = as_json(merge.given)
    for mode in (ORDINARY, *modes_of(config, seed)):
        vectors = tuple(trained_vector(config, mode, task, seed) for task in chosen)
        base = Initial(seed if mode == ORDINARY else other)
        prompt = blend(base, [(1.0, Merged(vectors, merge.method, merge.parameters))])
        for task in chosen:
            yield cells.Cell(
                NAME,
                Score(prompt, task),
                "merge",
                task,
                chosen,
                base.seed,
                None,
                1.0,
                seed,
                mode=mode,
                merge=merge.method,
                parameters=told,
            )
