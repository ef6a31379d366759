"""Source tasks alone, and their vectors on other starts (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence

from tpv.reporting import figures
from tpv.reporting.page import Figure, Section
from tpv.reporting.published import lookup, published
from tpv.reporting.results import Results, cell, made_from, not_run, present, starred, starts, unique, value, where
from tpv.reporting.significance import Contest, Verdict, decide
from tpv.reporting.tables import MISSING, Cell, Table, Value
from tpv.studies.records import Row

EXPERIMENT = "cross_initialisation"
NAMES = {"tuned": "prompt tuning", "moved": "vector on another start"}
VECTORS = (
    "vectors, portable, composable, fixed: trained as vectors, under starts drawn anew at every step (composable: "
    "beside the other tasks' too) or from one start of zeros; on starts they did not see, unless it says at home. "
)
AVERAGE, PAPER_AVERAGE = "average", "avg"


def sources_section(results: Results) -> Section:
    """What tuning a prompt for each source task gives."""
    heading = "Source tasks"
    scores = results.of("sources", "exact_match")
    if not scores:
        return Section(heading, not_run("sources"))
    tasks = results.in_order([*(row.task for row in scores), *_sources(results)])
    columns = [
        ("untuned", "untuned", "exact_match"),
        ("exact match", "tuned", "exact_match"),
        ("macro-F1", "tuned", "macro_f1"),
        ("F1", "tuned", "f1"),
        ("invalid", "tuned", "invalid_rate"),
        ("majority", "tuned", "majority"),
    ]
    if results.of("sources", "pearson"):
        columns.insert(3, ("Pearson", "tuned", "pearson"))
    rows: list[tuple[Cell, ...]] = []
    for task in tasks:
        found = [where(results.of("sources", metric), task=task, method=method) for _, method, metric in columns]
        examples = unique(row.n for row in where(scores, task=task))
        rows.append((results.study.short(task), *map(cell, found), ", ".join(map(str, examples)) or MISSING))
    seeds = starts(scores)
    note = (
        f"Percent of test examples; mean and deviation over {len(seeds)} starts. invalid: outputs that are no label "
        "word of the task; majority: what always saying the commonest label gets; F1: of the positive class, for two "
        f"labels. {present(len(scores), 2 * len(tasks) * len(seeds))} {made_from('sources')}"
    )
    head = ("task", *(name for name, *_ in columns), "examples")
    table = Table("Source tasks, before and after tuning", head, rows, note=note, name="sources")
    return Section(heading, "A soft prompt is tuned on each source task from each start (eq. 1).", tables=[table])


def _sources(results: Results) -> list[str]:
    return [task for family in results.study.families for task in family.sources]


def _average(rows: Sequence[Row], tasks: Sequence[str]) -> dict[tuple[int, int | None], float]:
    """The mean over tasks of every run that has all of them, by its two starts."""
    runs: dict[tuple[int, int | None], dict[str, float]] = {}
    for row in rows:
        runs.setdefault((row.init_seed, row.vector_seed), {})[row.task] = row.value
    return {key: sum(run.values()) / len(tasks) for key, run in runs.items() if len(run) == len(tasks)}


def _by_vector(rows: Sequence[Row]) -> list[float]:
    """The mean over the starts that a vector was put on, one number a vector: what is independent of each other."""
    seeds = sorted({row.init_seed if row.vector_seed is None else row.vector_seed for row in rows})
    groups = [[row.value for row in rows if row.vector_seed == seed] for seed in seeds]
    return [sum(group) / len(group) for group in groups if group]


def _contests(results: Results, tasks: Sequence[str]) -> list[Contest]:
    contests = []
    for task in tasks:
        by_method = {
            name: where(results.of(EXPERIMENT, "exact_match"), task=task, method=method)
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


def section(results: Results) -> tuple[Section, list[Verdict]]:
    """Table 1, with the paper's rows where they are comparable."""
    heading = "Vectors on other starts (Table 1)"
    rows = results.of(EXPERIMENT, "exact_match")
    if not rows:
        return Section(heading, not_run(EXPERIMENT)), []
    study = results.study
    tasks = results.in_order([*(row.task for row in rows), *_sources(results)])
    verdicts = decide(_contests(results, tasks))
    stars = {verdict.contest.where for verdict in verdicts if verdict.star}
    cells: dict[str, list[Value | str]] = {}
    for method in NAMES:
        mine = where(rows, method=method)
        scores = [cell(where(mine, task=task)) for task in tasks]
        if method == "moved":
            scores = [starred(score, study.short(task) in stars) for score, task in zip(scores, tasks, strict=True)]
        cells[method] = [*scores, value(list(_average(mine, tasks).values())) or MISSING]
    table_rows: list[tuple[Cell, ...]] = [(NAMES[method], *row) for method, row in cells.items()]
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
    further = [method for method in unique(row.method for row in rows) if method not in NAMES]
    shown = table_rows if paper else table_rows[:2]
    for method in further:
        mine = where(rows, method=method)
        average = value(list(_average(mine, tasks).values())) or MISSING
        shown = [*shown, (f"vectors, {method}", *(cell(where(mine, task=task)) for task in tasks), average)]
    seeds = starts(rows)
    expected = len(tasks) * len(seeds) ** 2
    norms = results.of("similarity", "norm_ratio")
    for kind in unique(row.method for row in norms):
        # how far a prompt was moved from its start: what is small beside the start gets lost on another
        ratios = where(norms, method=kind)
        by_task = [cell(where(ratios, task=task), unit=1, digits=2) for task in tasks]
        name = "" if kind == "vectors" else f", {kind.removesuffix(' vectors')}"
        shown = [*shown, (f"norm of vector / norm of start{name}", *by_task, cell(ratios, unit=1, digits=2))]
    table = Table(
        "Table 1: exact match of tuned prompts and of vectors on other starts",
        ("method", *map(study.short, tasks), AVERAGE),
        shown,
        note=f"Percent; mean and deviation over {len(seeds)} starts, for vectors over all pairs of a vector's start "
        f"and another ({len(seeds)} × {max(0, len(seeds) - 1)}); the average is taken over the tasks within a run. "
        "*: tuned and moved differ significantly: two-sample t test with one number per vector (its mean over starts, "
        "since the pairs of one vector are not independent), Bonferroni over the tasks. "
        + (VECTORS if further else "")
        + f"{present(len(where(rows, method='tuned')) + len(where(rows, method='moved')), expected)} "
        f"{made_from(EXPERIMENT)}",
        name="table1",
    )
    drawing = figures.grouped_bars(
        list(map(study.short, tasks)),
        {name: [_or_nan(of) for of in cells[method][:-1]] for method, name in NAMES.items()},
        "exact match",
        errors={name: [_or_nan(of, "std") for of in cells[method][:-1]] for method, name in NAMES.items()},
    )
    caption = f"Table 1 drawn: mean exact match, bars of one deviation over starts. {made_from(EXPERIMENT)}"
    text = "Each vector (tuned minus start, eq. 2) is added to every start it did not come from (eq. 3) and scored."
    return Section(heading, text, [Figure(drawing, caption, EXPERIMENT)], [table]), verdicts


def _or_nan(content: Value | str, what: str = "mean") -> float:
    """A number of the cell as a share; nan for none."""
    number = getattr(content, what) if isinstance(content, Value) else None
    return float("nan") if number is None else number / 100
