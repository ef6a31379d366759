"""Each vector on every initialization (RQ1a, Table 1); on its own it is the tuned prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tpv.registry import register
from tpv.reporting import figures
from tpv.reporting.about import Kind
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
from tpv.studies.modes import mode_of
from tpv.studies.settings import Config
from tpv.studies.vectors import modes_of, source_prompt, trained_vector

NAME = "cross_initialization"
NAMES = {"tuned": "prompt tuning", "moved": "vector on another initialization"}
VECTORS = (
    "portable, composable, fixed and the like: trained as vectors, on a new initialization at every step (composable: "
    "together with the other tasks' vectors) or on zeros; scored on initializations that they were not trained on, "
    "unless the row says at home. "
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
    tasks = results.in_order([*(row.task for row in rows), *_sources(results)])
    verdicts = decide(_contests(results, tasks))
    main = _main(results, rows, tasks, {verdict.contest.where for verdict in verdicts if verdict.star})
    text = (
        "Each vector (tuned prompt minus its initialization, eq. 2) is added to every other initialization (eq. 3) and "
        "scored."
    )
    return Section(heading, text, [_figure(results, main, tasks)], [_table(results, rows, main, tasks)]), verdicts


def _main(results: Results, rows: Sequence[Row], tasks: Sequence[str], stars: set[str]) -> dict[str, list[Value | str]]:
    """The two rows of Table 1, by method: a cell for each task, and the average."""
    found: dict[str, list[Value | str]] = {}
    for method in NAMES:
        mine = of_kind(rows, Kind(method))
        scores = [cell(where(mine, task=task)) for task in tasks]
        if method == "moved":
            short = results.study.short
            scores = [starred(score, short(task) in stars) for score, task in zip(scores, tasks, strict=True)]
        found[method] = [*scores, value(list(_average(mine, tasks).values())) or MISSING]
    return found


def _paper(results: Results, main: dict[str, list[Value | str]], tasks: Sequence[str]) -> list[tuple[Cell, ...]]:
    """The paper's rows, and ours minus the paper's; none where nothing can be compared."""
    study = results.study
    if not study.beside_paper:
        return []
    # an average of other tasks is not to be compared with the paper's
    same = {of.task for of in published() if of.table == 1} == {*tasks, PAPER_AVERAGE}
    rows: list[tuple[Cell, ...]] = []
    comparable = False
    for method, cells_ in main.items():
        numbers = [lookup(1, task, method, None, compat=study.compat) for task in tasks]
        comparable = comparable or any(numbers)
        numbers.append(lookup(1, PAPER_AVERAGE, method, None) if same else None)
        printed = [Value(of.mean, of.std, of.n, star=of.star) if of else MISSING for of in numbers]
        differences = [
            Value(ours.mean - of.mean, signed=True) if of and isinstance(ours, Value) else MISSING
            for ours, of in zip(cells_, numbers, strict=True)
        ]
        rows += [(f"paper: {NAMES[method]}", *printed), (f"ours − paper: {NAMES[method]}", *differences)]
    return rows if comparable else []


def _further(results: Results, rows: Sequence[Row], tasks: Sequence[str]) -> list[tuple[Cell, ...]]:
    """Vectors of other modes."""
    lines: list[tuple[Cell, ...]] = []
    for kind in kinds(row for row in rows if row.mode != ORDINARY):
        mine = of_kind(rows, kind)
        average = value(list(_average(mine, tasks).values())) or MISSING
        lines.append((f"vectors{kind.suffix}", *(cell(where(mine, task=task)) for task in tasks), average))
    return lines


def _norms(results: Results, tasks: Sequence[str]) -> list[tuple[Cell, ...]]:
    """How far prompts moved from their initialization: a vector that is small beside one gets lost on another."""
    norms = results.of("similarity", "norm_ratio")
    lines: list[tuple[Cell, ...]] = []
    for kind in kinds(norms):
        ratios = of_kind(norms, kind)
        by_task = [cell(where(ratios, task=task), unit=1, digits=2) for task in tasks]
        name = f"norm of vector / norm of initialization{kind.suffix}"
        lines.append((name, *by_task, cell(ratios, unit=1, digits=2)))
    return lines


def _table(results: Results, rows: Sequence[Row], main: dict[str, list[Value | str]], tasks: Sequence[str]) -> Table:
    further, n = _further(results, rows, tasks), len(starts(rows))
    have = sum(len(of_kind(rows, Kind(method))) for method in NAMES)
    own = [(NAMES[method], *cells_) for method, cells_ in main.items()]
    return Table(
        "Table 1: exact match of tuned prompts and of vectors on other initializations",
        ("method", *map(results.study.short, tasks), AVERAGE),
        [*own, *_paper(results, main, tasks), *further, *_norms(results, tasks)],
        note=f"Percent; mean and standard deviation over {n} initializations, for vectors over all "
        f"pairs of a vector's own initialization and another ({n} × {max(0, n - 1)}); the average is taken over the "
        "tasks within a run. "
        "*: tuned and moved differ significantly: two-sample t test with one number per vector (its mean over "
        "initializations, since the pairs of one vector are not independent), Bonferroni over the tasks. "
        + (VECTORS if further else "")
        + f"{present(have, len(tasks) * n**2)} {made_from(NAME)}",
        name="table1",
    )


def _figure(results: Results, main: dict[str, list[Value | str]], tasks: Sequence[str]) -> Figure:
    drawing = figures.grouped_bars(
        list(map(results.study.short, tasks)),
        {name: [_or_nan(of) for of in main[method][:-1]] for method, name in NAMES.items()},
        "exact match",
        errors={name: [_or_nan(of, "std") for of in main[method][:-1]] for method, name in NAMES.items()},
    )
    caption = f"Table 1 drawn: mean exact match, bars of one deviation over initializations. {made_from(NAME)}"
    return Figure(drawing, caption, NAME)


def _or_nan(content: Value | str, what: str = "mean") -> float:
    """A number of the cell as a share; nan for none."""
    number = getattr(content, what) if isinstance(content, Value) else None
    return float("nan") if number is None else number / 100
