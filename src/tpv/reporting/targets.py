"""Target tasks by the initialization of their prompt, as tables and drawings (Tables 2 and 4, figures 5 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tpv import metrics
from tpv.reporting import figures
from tpv.reporting.about import FamilyInfo, Kind
from tpv.reporting.costs import cost_table
from tpv.reporting.page import Chapter, Figure, Section
from tpv.reporting.published import Published, lookup
from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import (
    Results,
    cell,
    kinds,
    made_from,
    not_run,
    of_kind,
    present,
    slug,
    starred,
    starts,
    unique,
    where,
)
from tpv.reporting.significance import Contest, Verdict, decide
from tpv.reporting.tables import MISSING, Cell, Table, Value

NAME = "transfer"
NEAR = 100  # the paper's tables have 0 and 100 shots


def few(shots: Sequence[int]) -> list[int]:
    """0 shots and the number nearest 100, of those there are."""
    some = sorted(shot for shot in shots if shot)
    return [0] * (0 in shots) + ([min(some, key=lambda shot: abs(shot - NEAR))] if some else [])


@dataclass(frozen=True)
class FamilyScores:
    """The rows of one family, of the metric that each target is reported by."""

    results: Results
    family: FamilyInfo
    rows: Sequence[Row]

    @property
    def shots(self) -> list[int]:
        return sorted({row.shots for row in self.rows if row.shots is not None})

    @property
    def kinds(self) -> list[Kind]:
        """Random, each source, all sources, ours: the order of the paper."""
        spot = [Kind("spot", sources=(task,)) for task in self.family.sources]
        usual = [Kind("random"), *spot, Kind("spot_multi"), Kind("attempt"), Kind("sum")]
        seen = kinds(self.rows)
        return [kind for kind in unique([*usual, *seen]) if kind in seen]

    def of(self, target: str, kind: Kind, shots: int) -> list[Row]:
        return of_kind(where(self.rows, task=target, shots=shots), kind)

    def runs(self, kind: Kind) -> int:
        """How many initializations the kind has, wherever it has most."""
        return len(starts(of_kind(self.rows, kind)))

    def at_zero(self, kind: Kind) -> bool:
        """Whether the kind is scored at 0 shots: some methods say nothing before they have rows of the target."""
        return bool(of_kind(where(self.rows, shots=0), kind))


def _metric(results: Results, task: str) -> str:
    info = results.study.tasks.get(task)
    return info.metric if info else "exact_match"


def _families(results: Results) -> list[FamilyScores]:
    """Every family with scores; targets of no family are one of their own."""
    named = {target for family in results.study.families for target in family.targets}
    other = [row.task for row in results.of(NAME, "exact_match") if row.task not in named]
    families = [*results.study.families, *([FamilyInfo("other", (), tuple(unique(other)))] if other else [])]
    found = []
    for family in families:
        rows = [
            row for target in family.targets for row in where(results.of(NAME, _metric(results, target)), task=target)
        ]
        if rows:
            found.append(FamilyScores(results, family, rows))
    return found


def _contests(families: Sequence[FamilyScores], table: str, shots: Sequence[int]) -> list[Contest]:
    contests = []
    for scores in families:
        study = scores.results.study
        for target in scores.family.targets:
            for shot in shots:
                by_method = {study.named(kind): scores.of(target, kind, shot) for kind in scores.kinds}
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
    """Positions of the best mean and the second best; none if all are equal or there is only one."""
    means = sorted({of.mean for of in column if isinstance(of, Value)}, reverse=True)
    if len(means) < 2:
        return [], []
    best, second = ([i for i, of in enumerate(column) if isinstance(of, Value) and of.mean == m] for m in means[:2])
    return best, second if len(best) == 1 else []


def _paper(scores: FamilyScores, target: str, kind: Kind, shots: int) -> Published | None:
    study = scores.results.study
    if not study.beside_paper or kind.mode != ORDINARY:
        return None
    return lookup(4, target, kind.method, shots, source="".join(kind.sources), compat=study.compat)


def _comparable(scores: FamilyScores, target: str) -> bool:
    """Whether our metric is the one behind the paper's number: F1 of the positive class for two labels (quirk 5)."""
    about = scores.results.study.tasks.get(target)
    return about is not None and _metric(scores.results, target) == ("f1" if len(about.labels) == 2 else "macro_f1")


def _beside(column: Sequence[Cell], numbers: Sequence[Published | None], comparable: bool) -> list[list[Cell]]:
    """The columns beside one of ours: the paper's numbers, and ours minus the paper's."""
    printed: list[Cell] = [Value(of.mean, of.std, of.n, star=of.star) if of else MISSING for of in numbers]
    differences: list[Cell] = [
        Value(ours.mean - of.mean, signed=True) if of and isinstance(ours, Value) and comparable else MISSING
        for ours, of in zip(column, numbers, strict=True)
    ]
    return [printed, differences]


def _table(scores: FamilyScores, shots: Sequence[int], verdicts: Sequence[Verdict], title: str, name: str) -> Table:
    """Targets and methods down, shots across; the paper's numbers beside those they can be compared with."""
    study, targets = scores.results.study, scores.family.targets
    stars = {(verdict.contest.where, verdict.comparison.best) for verdict in verdicts if verdict.star}
    compared = {
        shot for shot in shots if any(_paper(scores, target, kind, shot) for target in targets for kind in scores.kinds)
    }
    head = ["target", "initialization"]
    for shot in shots:
        head += [f"{shot} shots", *([f"paper, {shot}", f"ours − paper, {shot}"] if shot in compared else [])]
    rows: list[tuple[Cell, ...]] = []
    best: set[tuple[int, int]] = set()
    second: set[tuple[int, int]] = set()
    for target in targets:
        columns: list[list[Cell]] = []
        for shot in shots:
            place = _where(study.short(target), shot)
            column = [
                starred(cell(scores.of(target, kind, shot)), (place, study.named(kind)) in stars)
                for kind in scores.kinds
            ]
            top, next_ = _ranked(column)
            best |= {(len(rows) + i, len(columns) + 2) for i in top}
            second |= {(len(rows) + i, len(columns) + 2) for i in next_}
            columns.append(list(column))
            if shot in compared:
                numbers = [_paper(scores, target, kind, shot) for kind in scores.kinds]
                columns += _beside(column, numbers, _comparable(scores, target))
        metric = metrics.title(_metric(scores.results, target))
        rows += [
            (f"{study.short(target)} ({metric})", study.named(kind), *contents)
            for kind, *contents in zip(scores.kinds, *columns, strict=True)
        ]
    note = _note(scores, shots, bool(compared))
    return Table(title, tuple(head), rows, note=note, best=best, second=second, name=name)


def _note(scores: FamilyScores, shots: Sequence[int], compared: bool) -> str:
    """What a table of transfer means, and whether scores are missing."""
    study, targets = scores.results.study, scores.family.targets
    have = sum(len(scores.of(target, kind, shot)) for target in targets for kind in scores.kinds for shot in shots)
    asked = [(kind, shot) for kind in scores.kinds for shot in shots if shot or scores.at_zero(kind)]
    expected = len(targets) * sum(scores.runs(kind) for kind, _ in asked)
    runs = "; ".join(f"{study.named(kind)}: {scores.runs(kind)}" for kind in scores.kinds)
    other = (
        "The paper's numbers of two-label tasks are F1 of the positive class, so no difference is shown beside another "
        "metric. "
    )
    return (
        f"Percent; mean and standard deviation over initializations ({runs}). "
        + (other if compared and not all(_comparable(scores, target) for target in targets) else "")
        + "Shots are training examples in total; at 0 shots the initialization itself is scored. Bold: best of the "
        "column for the target; underlined: second best; *: differs significantly from the second best (t test, "
        f"Bonferroni over all targets and shots of all families). {present(have, expected)} {made_from(NAME)}"
    )


def _figure(scores: FamilyScores, name: str) -> Figure:
    """Scores over all shots, a panel for each target."""
    study = scores.results.study
    ticks = scores.shots
    panels = []
    for target in scores.family.targets:
        lines = {}
        for kind in scores.kinds:
            points = [(x, cell(scores.of(target, kind, shot))) for x, shot in enumerate(ticks)]
            lines[study.named(kind)] = figures.line_through(points)
        title = f"{study.short(target)} ({metrics.title(_metric(scores.results, target))})"
        panels.append(figures.LinePanel(title, lines, ticks=list(map(str, ticks))))
    drawing = figures.line_panels(panels, "shots", "percent", columns=2, size=(4.2, 3.0), limits=None)
    caption = (
        f"{scores.family.name}: mean by shots, bars of one deviation over initializations (at most "
        f"{len(starts(scores.rows))}). As figures 5 and 9. {made_from(NAME)}"
    )
    return Figure(drawing, caption, name)


def _coverage(results: Results) -> Table | None:
    """How many of a target's label words any source of the method ever said (quirk 13)."""
    rows = results.of(NAME, "label_coverage")
    if not rows:
        return None
    targets = results.in_order(row.task for row in rows)
    found = kinds(rows)
    cells: list[tuple[Cell, ...]] = [
        (
            results.study.short(target),
            *(
                Value(100 * sum(row.value for row in of) / len(of), digits=0) if of else MISSING
                for of in (of_kind(where(rows, task=target), kind) for kind in found)
            ),
        )
        for target in targets
    ]
    return Table(
        "Label coverage: the target's label words that a source of the method has said",
        ("target", *map(results.study.named, found)),
        cells,
        note="Percent of the target's label words. Where it is 0, a prompt that was never tuned on the target cannot "
        f"be expected to say any of them: a score of 0 at 0 shots says that, and no more. {made_from(NAME)}",
        name="label_coverage",
    )


def section(results: Results, heading: str) -> Chapter:
    """Tables and figures; the verdicts of the two-shots tables, and those over all shots."""
    families = _families(results)
    if not families:
        return Chapter([Section(heading, not_run(NAME))])
    every = sorted({shot for scores in families for shot in scores.shots})
    two = few(every)
    main = decide(_contests(families, "Tables 2 and 4", two))
    full = decide(_contests(families, "All shots", every))
    tables, rest, drawings = [], [], []
    for number, scores in enumerate(families, start=1):
        name = scores.family.name
        file = f"{number}_{slug(name)}"
        near = [shot for shot in two if shot in scores.shots]
        tables.append(_table(scores, near, main, f"{name}: {_and(near)} shots", f"table4_{file}"))
        if scores.shots != near:
            rest.append(_table(scores, scores.shots, full, f"{name}: all shots", f"shots_{file}"))
        drawings.append(_figure(scores, f"shots_{file}"))
    coverage = _coverage(results)
    text = (
        "Prompts for tasks that no source was tuned on, initialized in different ways, with nothing and with a "
        "few examples. random: an untrained prompt; SPoT: a source task's tuned prompt, or one tuned on all sources "
        "(multi-task); ATTEMPT: attention over the sources' prompts; sum: an untrained prompt plus the sources' "
        "vectors."
    )
    costs = cost_table(results, NAME)
    shown = [*tables, *([coverage] if coverage else []), *([costs] if costs else []), *rest]
    return Chapter([Section(heading, text, drawings, shown)], main, full)


def _and(shots: Sequence[int]) -> str:
    return " and ".join(map(str, shots))
