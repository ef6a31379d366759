"""Target tasks by where their prompt starts (Tables 2 and 4, figures 5 and 9), and label coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tpv.reporting import figures
from tpv.reporting.about import Family
from tpv.reporting.page import Figure, Section
from tpv.reporting.published import Published, lookup
from tpv.reporting.results import Results, cell, made_from, not_run, present, slug, starred, starts, unique, where
from tpv.reporting.significance import Contest, Verdict, decide
from tpv.reporting.tables import MISSING, Cell, Table, Value
from tpv.studies.records import Row

EXPERIMENT = "transfer"
METRICS = {"exact_match": "exact match", "f1": "F1", "macro_f1": "macro-F1", "pearson": "Pearson"}
NEAR = 100  # the paper's tables have 0 and 100 shots


def few(shots: Sequence[int]) -> list[int]:
    """0 shots and the number nearest 100, of those there are."""
    some = sorted(shot for shot in shots if shot)
    return [0] * (0 in shots) + ([min(some, key=lambda shot: abs(shot - NEAR))] if some else [])


@dataclass(frozen=True)
class Scores:
    """The reported metric's rows of one family."""

    results: Results
    family: Family
    rows: Sequence[Row]

    @property
    def shots(self) -> list[int]:
        return sorted({row.shots for row in self.rows if row.shots is not None})

    @property
    def methods(self) -> list[str]:
        """Random, each source, all sources, ours: the order of the paper."""
        usual = ["random", *(f"SPoT {task}" for task in self.family.sources), "SPoT multi-task", "ATTEMPT", "sum"]
        seen = unique(row.method for row in self.rows)
        return [method for method in unique([*usual, *seen]) if method in seen]

    def of(self, target: str, method: str, shots: int) -> list[Row]:
        return where(self.rows, task=target, method=method, shots=shots)

    def runs(self, method: str) -> int:
        """How many starts the method has, wherever it has most."""
        return len(starts(where(self.rows, method=method)))


def _metric(results: Results, task: str) -> str:
    info = results.study.tasks.get(task)
    return info.metric if info else "exact_match"


def _families(results: Results) -> list[Scores]:
    """Every family with scores; targets of no family are one of their own."""
    named = {target for family in results.study.families for target in family.targets}
    other = [row.task for row in results.of(EXPERIMENT, "exact_match") if row.task not in named]
    families = [*results.study.families, *([Family("other", (), tuple(unique(other)))] if other else [])]
    found = []
    for family in families:
        rows = [
            row
            for target in family.targets
            for row in where(results.of(EXPERIMENT, _metric(results, target)), task=target)
        ]
        if rows:
            found.append(Scores(results, family, rows))
    return found


def _contests(families: Sequence[Scores], table: str, shots: Sequence[int]) -> list[Contest]:
    contests = []
    for scores in families:
        study = scores.results.study
        for target in scores.family.targets:
            for shot in shots:
                by_method = {study.method(method): scores.of(target, method, shot) for method in scores.methods}
                by_method = {method: rows for method, rows in by_method.items() if rows}
                if len(by_method) > 1:
                    contests.append(
                        Contest(
                            table,
                            _where(study.short(target), shot),
                            study.tasks.get(target),
                            _metric(scores.results, target),
                            {method: [row.value for row in rows] for method, rows in by_method.items()},
                            {method: [row.job for row in rows] for method, rows in by_method.items()},
                        )
                    )
    return contests


def _where(target: str, shots: int) -> str:
    return f"{target}, {shots} shots"


def _ranked(column: Sequence[Cell]) -> tuple[list[int], list[int]]:
    """Positions of the best mean and of the next; none where all are the same, or there is only one."""
    means = sorted({of.mean for of in column if isinstance(of, Value)}, reverse=True)
    if len(means) < 2:
        return [], []
    best, second = ([i for i, of in enumerate(column) if isinstance(of, Value) and of.mean == m] for m in means[:2])
    return best, second if len(best) == 1 else []


def _paper(scores: Scores, target: str, method: str, shots: int) -> Published | None:
    study = scores.results.study
    return lookup(4, target, method, shots, compat=study.compat) if study.beside_paper else None


def _comparable(scores: Scores, target: str) -> bool:
    """Whether our metric is the one behind the paper's number: F1 of the positive class for two labels (quirk 5)."""
    about = scores.results.study.tasks.get(target)
    return about is not None and _metric(scores.results, target) == ("f1" if len(about.labels) == 2 else "macro_f1")


def _table(scores: Scores, shots: Sequence[int], verdicts: Sequence[Verdict], title: str, name: str) -> Table:
    """Targets and methods down, shots across; the paper's numbers beside those they can be compared with."""
    study = scores.results.study
    stars = {(verdict.contest.where, verdict.comparison.best) for verdict in verdicts if verdict.star}
    compared = {
        shot
        for shot in shots
        for target in scores.family.targets
        for method in scores.methods
        if _paper(scores, target, method, shot)
    }
    head = ["target", "start"]
    for shot in shots:
        head += [f"{shot} shots", *([f"paper, {shot}", f"ours − paper, {shot}"] if shot in compared else [])]
    rows: list[tuple[Cell, ...]] = []
    best: set[tuple[int, int]] = set()
    second: set[tuple[int, int]] = set()
    have = expected = 0
    for target in scores.family.targets:
        columns: list[list[Cell]] = []
        for shot in shots:
            found = [scores.of(target, method, shot) for method in scores.methods]
            have += sum(map(len, found))
            expected += sum(map(scores.runs, scores.methods))
            where_ = _where(study.short(target), shot)
            column: list[Cell] = [
                starred(cell(rows_), (where_, study.method(method)) in stars)
                for method, rows_ in zip(scores.methods, found, strict=True)
            ]
            top, next_ = _ranked(column)
            at = len(columns) + 2
            best |= {(len(rows) + i, at) for i in top}
            second |= {(len(rows) + i, at) for i in next_}
            columns.append(column)
            if shot in compared:
                numbers = [_paper(scores, target, method, shot) for method in scores.methods]
                columns.append([Value(of.mean, of.std, of.n, star=of.star) if of else MISSING for of in numbers])
                columns.append(
                    [
                        Value(ours.mean - of.mean, signed=True)
                        if of and isinstance(ours, Value) and _comparable(scores, target)
                        else MISSING
                        for ours, of in zip(column, numbers, strict=True)
                    ]
                )
        metric = METRICS[_metric(scores.results, target)]
        rows += [
            (f"{study.short(target)} ({metric})", study.method(method), *cells)
            for method, *cells in zip(scores.methods, *columns, strict=True)
        ]
    runs = "; ".join(f"{study.method(method)}: {scores.runs(method)}" for method in scores.methods)
    return Table(
        title,
        tuple(head),
        rows,
        note=f"Percent; mean and deviation over starts ({runs}). "
        + (
            ""
            if not compared or all(_comparable(scores, target) for target in scores.family.targets)
            else "The paper's numbers of two-label tasks are F1 of the positive class, so no difference is shown "
            "beside another metric. "
        )
        + f"Shots are training examples in total; 0 shots is the "
        "start itself, scored. Bold: best of the column for the target; underlined: second best; *: differs "
        "significantly from the second best (t test, Bonferroni over all targets and shots of all families). "
        f"{present(have, expected)} {made_from(EXPERIMENT)}",
        best=best,
        second=second,
        name=name,
    )


def _figure(scores: Scores, name: str) -> Figure:
    """Scores over all shots, a panel a target."""
    study = scores.results.study
    ticks = scores.shots
    panels = []
    for target in scores.family.targets:
        lines = {}
        for method in scores.methods:
            points = [(x, cell(scores.of(target, method, shot))) for x, shot in enumerate(ticks)]
            lines[study.method(method)] = figures.Line.through(points)
        title = f"{study.short(target)} ({METRICS[_metric(scores.results, target)]})"
        panels.append(figures.LinePanel(title, lines, ticks=list(map(str, ticks))))
    drawing = figures.line_panels(panels, "shots", "percent", columns=2, size=(4.2, 3.0), limits=None)
    caption = (
        f"{scores.family.name}: mean by shots, bars of one deviation over starts (at most "
        f"{len(starts(scores.rows))}). As figures 5 and 9. {made_from(EXPERIMENT)}"
    )
    return Figure(drawing, caption, name)


def _coverage(results: Results) -> Table | None:
    """How many of a target's label words any source of the method ever said (quirk 13)."""
    rows = results.of(EXPERIMENT, "label_coverage")
    if not rows:
        return None
    targets = results.in_order(row.task for row in rows)
    methods = unique(row.method for row in rows)
    cells: list[tuple[Cell, ...]] = [
        (
            results.study.short(target),
            *(
                Value(100 * sum(row.value for row in of) / len(of), digits=0) if of else MISSING
                for of in (where(rows, task=target, method=method) for method in methods)
            ),
        )
        for target in targets
    ]
    return Table(
        "Label coverage: the target's label words that a source of the method has said",
        ("target", *map(results.study.method, methods)),
        cells,
        note="Percent of the target's label words. Where it is 0, a prompt that was never tuned on the target cannot "
        f"be expected to say any of them: a score of 0 at 0 shots says that, and no more. {made_from(EXPERIMENT)}",
        name="label_coverage",
    )


def section(results: Results) -> tuple[Section, list[Verdict], list[Verdict]]:
    """Tables and figures; the verdicts of the two-shots tables, and those over all shots."""
    heading = "Transfer to target tasks (Tables 2 and 4, figures 5 and 9)"
    families = _families(results)
    if not families:
        return Section(heading, not_run(EXPERIMENT)), [], []
    every = sorted({shot for scores in families for shot in scores.shots})
    two = few(every)
    main = decide(_contests(families, "Tables 2 and 4", two))
    full = decide(_contests(families, "All shots", every))
    tables, rest, drawings = [], [], []
    for number, scores in enumerate(families, start=1):
        name = scores.family.name
        file = f"{number}_{slug(name)}"
        shown = [shot for shot in two if shot in scores.shots]
        tables.append(_table(scores, shown, main, f"{name}: {_and(shown)} shots", f"table4_{file}"))
        if scores.shots != shown:
            rest.append(_table(scores, scores.shots, full, f"{name}: all shots", f"shots_{file}"))
        drawings.append(_figure(scores, f"shots_{file}"))
    coverage = _coverage(results)
    text = (
        "Prompts for tasks that no source was tuned on, started in different ways, with nothing and with a few "
        "examples. random: an untrained start; SPoT: a source task's tuned prompt, or one tuned on all sources "
        "(multi-task); ATTEMPT: attention over the sources' prompts; sum: an untrained start plus the sources' vectors."
    )
    return Section(heading, text, drawings, [*tables, *([coverage] if coverage else []), *rest]), main, full


def _and(shots: Sequence[int]) -> str:
    return " and ".join(map(str, shots))
