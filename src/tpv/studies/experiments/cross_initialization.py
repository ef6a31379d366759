"""Each vector on every initialization (RQ1a, Table 1); on its own it is the tuned prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tpv.registry import register
from tpv.reporting import figures
from tpv.reporting.about import Kind, Study
from tpv.reporting.intervals import Group
from tpv.reporting.page import Chapter, Figure, Section
from tpv.reporting.published import lookup, published
from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import (
    Results,
    cell,
    kinds,
    made_from,
    not_run,
    of_kind,
    present,
    starred,
    starts,
    value,
    where,
)
from tpv.reporting.significance import Contest, Verdict, decide
from tpv.reporting.tables import MISSING, Cell, Table, Value
from tpv.studies import cells
from tpv.studies.expressions import Initial, Zeros, blend
from tpv.studies.jobs.score import Score
from tpv.studies.settings import Config
from tpv.studies.vectors import mode_of, modes_of, source_prompt, trained_vector

NAME = "cross_initialization"
NAMES = {"tuned": "prompt tuning", "moved": "vector on another initialization"}
VECTORS = (
    "portable, composable, fixed and the like: vectors trained as vectors, under initializations drawn anew at "
    "every step "
    "(composable: beside the other tasks' too) or from zeros; on initializations they did not see, unless it says at "
    "home. "
)
AVERAGE, PAPER_AVERAGE = "average", "avg"


@register.experiment(NAME, order=20)
class CrossInitialization:
    """Each vector on every initialization."""

    title: ClassVar[str] = "Vectors on other initializations (Table 1)"
    plan_split: ClassVar[tuple[str, ...]] = ("method", "mode")

    @staticmethod
    def cells(config: Config) -> Iterator[cells.Cell]:
        """Every vector on every initialization; those of other modes on the ones they were not trained from."""
        for task in config.source_tasks:
            for home in config.seeds.starts:
                tuned = source_prompt(config, task, home)
                for seed in config.seeds.starts:
                    prompt = tuned if seed == home else blend(Initial(seed), [(1.0, tuned)])
                    method = "tuned" if seed == home else "moved"
                    yield cells.Cell(NAME, Score(prompt, task), method, task, (task,), seed, None, 1.0, home)
                for mode in modes_of(config, home):
                    yield from _other_mode(config, mode, task, home)

    @staticmethod
    def section(results: Results) -> Chapter:
        """Table 1, with the paper's rows where they are comparable."""
        section, verdicts = _section(results)
        return Chapter([section], verdicts)

    @staticmethod
    def groups(results: Results) -> Iterator[Group]:
        """The scores that get an interval."""
        rows = [row for row in results.of(NAME, "exact_match") if row.method != "tuned"]
        for task in results.in_order(row.task for row in rows):
            mine = where(rows, task=task)
            for kind in kinds(mine):
                yield Group(
                    "on another initialization", task, results.study.named(kind), "exact_match", of_kind(mine, kind)
                )


def _other_mode(config: Config, mode: str, task: str, home: int) -> Iterator[cells.Cell]:
    vector = trained_vector(config, mode, task, home)
    about = mode_of(mode)
    elsewhere = [seed for seed in config.seeds.starts if seed != home] or [home]
    bases: list[tuple[bool, Any, int]] = [(False, Initial(seed), seed) for seed in elsewhere]
    if about.home:
        bases.append((True, Zeros(), home))
    elif about.kind == "prompt":
        bases.append((True, Initial(home), home))
    for at_home, base, seed in bases:
        score = Score(blend(base, [(1.0, vector)]), task)
        yield cells.Cell(
            NAME, score, "tuned" if at_home else "moved", task, (task,), seed, None, 1.0, home, mode=mode, home=at_home
        )


def _sources(results: Results) -> list[str]:
    return [task for family in results.study.families for task in family.sources]


def _average(rows: Sequence[Row], tasks: Sequence[str]) -> dict[tuple[int, int | None], float]:
    """The mean over tasks of every run that has all of them, by its two seeds."""
    runs: dict[tuple[int, int | None], dict[str, float]] = {}
    for row in rows:
        runs.setdefault((row.init_seed, row.vector_seed), {})[row.task] = row.value
    return {key: sum(run.values()) / len(tasks) for key, run in runs.items() if len(run) == len(tasks)}


def _by_vector(rows: Sequence[Row]) -> list[float]:
    """The mean over the initializations that a vector was added to, one number per vector: these are independent."""
    seeds = sorted({row.init_seed if row.vector_seed is None else row.vector_seed for row in rows})
    groups = [[row.value for row in rows if row.vector_seed == seed] for seed in seeds]
    return [sum(group) / len(group) for group in groups if group]


def _contests(results: Results, tasks: Sequence[str]) -> list[Contest]:
    contests = []
    for task in tasks:
        by_method = {
            name: of_kind(where(results.of(NAME, "exact_match"), task=task), Kind(method))
            for method, name in NAMES.items()
        }
        if all(by_method.values()):
            contests.append(
                Contest(
                    "Table 1",
                    results.study.short(task),
                    results.study.tasks.get(task),
                    "exact_match",
                    {name: _by_vector(rows) for name, rows in by_method.items()},
                    {name: [row.job for row in rows] for name, rows in by_method.items()},
                )
            )
    return contests


def _section(results: Results) -> tuple[Section, list[Verdict]]:
    """Table 1, with the paper's rows where they are comparable."""
    heading = CrossInitialization.title
    rows = results.of(NAME, "exact_match")
    if not rows:
        return Section(heading, not_run(NAME)), []
    study = results.study
    tasks = results.in_order([*(row.task for row in rows), *_sources(results)])
    verdicts = decide(_contests(results, tasks))
    stars = {verdict.contest.where for verdict in verdicts if verdict.star}
    cells: dict[str, list[Value | str]] = {}
    for method in NAMES:
        mine = of_kind(rows, Kind(method))
        scores = [cell(where(mine, task=task)) for task in tasks]
        if method == "moved":
            scores = [starred(score, study.short(task) in stars) for score, task in zip(scores, tasks, strict=True)]
        cells[method] = [*scores, value(list(_average(mine, tasks).values())) or MISSING]
    further = [kind for kind in kinds(rows) if kind.mode != ORDINARY]
    shown = _printed(study, tasks, cells)
    for kind in further:
        mine = of_kind(rows, kind)
        average = value(list(_average(mine, tasks).values())) or MISSING
        shown.append((f"vectors{kind.suffix}", *(cell(where(mine, task=task)) for task in tasks), average))
    shown += _norms(results, tasks)
    seeds = starts(rows)
    expected = len(tasks) * len(seeds) ** 2
    table = Table(
        "Table 1: exact match of tuned prompts and of vectors on other initializations",
        ("method", *map(study.short, tasks), AVERAGE),
        shown,
        note=f"Percent; mean and deviation over {len(seeds)} initializations, for vectors over all pairs of a "
        f"vector's own and another ({len(seeds)} × {max(0, len(seeds) - 1)}); the average is taken over the tasks "
        "within a run. "
        "*: tuned and moved differ significantly: two-sample t test with one number per vector (its mean over "
        "initializations, "
        "since the pairs of one vector are not independent), Bonferroni over the tasks. "
        + (VECTORS if further else "")
        + f"{present(sum(len(of_kind(rows, Kind(method))) for method in NAMES), expected)} "
        f"{made_from(NAME)}",
        name="table1",
    )
    text = (
        "Each vector (tuned minus initialization, eq. 2) is added to every initialization it was not trained "
        "from (eq. 3)."
    )
    return Section(heading, text, [_figure(study, tasks, cells)], [table]), verdicts


def _printed(study: Study, tasks: Sequence[str], cells: Mapping[str, Sequence[Value | str]]) -> list[tuple[Cell, ...]]:
    """Our rows, then the paper's and the differences where any can be compared."""
    table_rows: list[tuple[Cell, ...]] = [(NAMES[method], *row) for method, row in cells.items()]
    ours_alone = list(table_rows)
    paper = False
    # an average of other tasks is not to be compared with the paper's
    same = {of.task for of in published() if of.table == 1} == {*tasks, PAPER_AVERAGE}
    if study.beside_paper:
        for method, row in cells.items():
            numbers = [lookup(1, task, method, None, compat=study.compat) for task in tasks]
            paper = paper or any(numbers)
            numbers.append(lookup(1, PAPER_AVERAGE, method, None) if same else None)
            table_rows += [
                (
                    f"paper: {NAMES[method]}",
                    *(
                        Value(number.mean, number.std, number.n, star=number.star) if number else MISSING
                        for number in numbers
                    ),
                ),
                (
                    f"ours − paper: {NAMES[method]}",
                    *(
                        Value(ours.mean - number.mean, signed=True) if number and isinstance(ours, Value) else MISSING
                        for ours, number in zip(row, numbers, strict=True)
                    ),
                ),
            ]
    return table_rows if paper else ours_alone


def _norms(results: Results, tasks: Sequence[str]) -> list[tuple[Cell, ...]]:
    """How far prompts were moved: what is small beside an initialization gets lost on another."""
    norms = results.of("similarity", "norm_ratio")
    shown: list[tuple[Cell, ...]] = []
    for kind in kinds(norms):
        ratios = of_kind(norms, kind)
        by_task = [cell(where(ratios, task=task), unit=1, digits=2) for task in tasks]
        name = f"norm of vector / norm of initialization{kind.suffix}"
        shown.append((name, *by_task, cell(ratios, unit=1, digits=2)))
    return shown


def _figure(study: Study, tasks: Sequence[str], cells: Mapping[str, Sequence[Value | str]]) -> Figure:
    """Table 1 as bars."""
    drawing = figures.grouped_bars(
        list(map(study.short, tasks)),
        {name: [_or_nan(of) for of in cells[method][:-1]] for method, name in NAMES.items()},
        "exact match",
        errors={name: [_or_nan(of, "std") for of in cells[method][:-1]] for method, name in NAMES.items()},
    )
    caption = f"Table 1 drawn: mean exact match, bars of one deviation over initializations. {made_from(NAME)}"
    return Figure(drawing, caption, NAME)


def _or_nan(content: Value | str, what: str = "mean") -> float:
    """A number of the cell as a share; nan for none."""
    number = getattr(content, what) if isinstance(content, Value) else None
    return float("nan") if number is None else number / 100
