"""Subtract one task's vector; score that task and another as control (future work of the paper)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tpv.registry import register
from tpv.reporting import figures
from tpv.reporting.costs import cost_table
from tpv.reporting.page import Chapter, Figure, Section
from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import Results, cell, kinds, made_from, not_run, of_kind, present, unique, value, where
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies import cells
from tpv.studies.expressions import Data, blend
from tpv.studies.jobs.score import Score
from tpv.studies.jobs.train import Train
from tpv.studies.settings import Config
from tpv.studies.tables import Count, Distinct, Settings, Switch, renamed
from tpv.studies.vectors import base_of, modes_of, source_prompt, trained_vector

NAME = "negation"
Method = Literal["sum_own", "sum_other", "tuned_own", "tuned_other", "sum_ascent", "tuned_ascent"]
ASCENT = ("sum_ascent", "tuned_ascent")
OLD_NAMES = {  # of 0.1, still read
    "sum - own vector": "sum_own",
    "sum - other start's vector": "sum_other",
    "tuned - own vector": "tuned_own",
    "tuned - other start's vector": "tuned_other",
}


class Negation(Settings):
    """Subtract a task's vector, for each ordered pair of a family's sources.

    Attributes:
        scales: factors of the vector that is subtracted.
        methods: what the vector is subtracted from, the sum of two vectors or the tuned prompt; and which vector it is,
            the task's own or the one from another initialization. `sum_ascent` and `tuned_ascent` subtract nothing:
            they train the prompt by gradient ascent on the task's rows, for the factor times `ascent_steps` steps.
        sum_scale: factor of the two vectors in the sum.
        ascent_steps: optimizer steps of gradient ascent at factor 1, at the learning rate of the task's own prompt.
        outside: also forget each task beside the first source of the next family, not of its own family alone.
    """

    scales: Annotated[tuple[Annotated[float, Field(ge=0, le=100, strict=True)], ...], Field(min_length=1), Distinct] = (
        0,
        0.5,
        1,
        1.5,
        2,
    )
    methods: Annotated[tuple[Annotated[Method, renamed(OLD_NAMES)], ...], Field(min_length=1), Distinct] = (
        "sum_own",
        "sum_other",
        "tuned_own",
        "tuned_other",
    )
    sum_scale: Annotated[float, Field(gt=0, le=10, strict=True)] = 1.0
    ascent_steps: Count = 20
    outside: Switch = False


@register.experiment(NAME, parameters=Negation, order=60)
class NegationExperiment:
    """Subtract one task's vector; score that task and another as control."""

    title: ClassVar[str] = "Subtracting a vector"
    compared: ClassVar[bool] = False  # its scores are of many scales, which a comparison of runs would average
    plan_split: ClassVar[tuple[str, ...]] = ("method", "mode")

    @staticmethod
    def cells(config: Config) -> Iterator[cells.Cell]:
        """Every pair of sources, method, initialization, mode and scale."""
        settings, seeds = config.table(Negation), config.seeds.starts
        for method in settings.methods:
            from_other = method in ("sum_other", "tuned_other")
            if from_other and len(seeds) < 2:
                continue
            for forgotten, control in _pairs(config):
                for i, seed in enumerate(seeds):
                    other = seeds[(i + 1) % len(seeds)] if from_other else seed
                    for mode in (ORDINARY, *(modes_of(config, seed) if method == "sum_own" else ())):
                        for scale in settings.scales:
                            prompt = _without(config, method, mode, (forgotten, control), seed, other, scale)
                            for task in (forgotten, control):
                                yield cells.Cell(
                                    NAME,
                                    Score(prompt, task),
                                    method,
                                    task,
                                    (forgotten, control),
                                    seed,
                                    None,
                                    scale,
                                    other,
                                    mode=mode,
                                    costed=method in ASCENT and scale > 0,
                                )

    @staticmethod
    def section(results: Results) -> Chapter:
        """Drops by factor of the subtracted vector, and the curves."""
        return Chapter([_section(results)])


def _pairs(config: Config) -> list[tuple[str, str]]:
    """The task to forget, and its control: of the same family, and of the next one if that is asked for."""
    families = config.families
    pairs = [pair for family in families for pair in permutations(family.sources, 2)]
    if config.table(Negation).outside and len(families) > 1:
        for family, following in zip(families, (*families[1:], families[0]), strict=True):
            pairs += [(task, following.sources[0]) for task in family.sources]
    return pairs


def _without(config: Config, method: str, mode: str, pair: tuple[str, str], seed: int, other: int, scale: float) -> Any:
    """A prompt that has forgotten the first of two tasks, by this factor."""
    settings, forgotten = config.table(Negation), pair[0]
    from_sum = method.startswith("sum")
    added = [(settings.sum_scale, trained_vector(config, mode, task, seed)) for task in pair] if from_sum else []
    base = base_of(mode, seed) if from_sum else source_prompt(config, forgotten, seed)
    if method not in ASCENT:
        return blend(base, [*added, (-scale, trained_vector(config, mode, forgotten, other))])
    begun = blend(base, added)
    if scale == 0:
        return begun
    steps = max(1, round(scale * settings.ascent_steps))
    recipe = replace(
        config.source_recipe(forgotten), steps=steps, epochs=None, select="last", schedule="constant", patience=None
    )
    return Train(Data((forgotten,)), begun, recipe, "ascent")


def _run(row: Row) -> tuple[int, int | None]:
    return row.init_seed, row.vector_seed


def _scales(rows: Sequence[Row]) -> list[float]:
    return sorted({row.scale for row in rows if row.scale is not None})


def _drops(rows: Sequence[Row], scale: float) -> list[float]:
    """Score at factor 0 minus score at `scale`, per run that has both."""
    whole = {_run(row): row.value for row in where(rows, scale=0.0)}
    return [whole[_run(row)] - row.value for row in where(rows, scale=scale) if _run(row) in whole]


def _tables(results: Results, rows: Sequence[Row]) -> list[Table]:
    """Drops, and the scores themselves: a row a pair of tasks, method and task scored; a column a factor."""
    study = results.study
    scales = _scales(rows)
    lost_scales = [scale for scale in scales if scale != 0]
    scores: list[tuple[Cell, ...]] = []
    drops: list[tuple[Cell, ...]] = []
    expected = 0
    for kind in kinds(rows):
        of_method = of_kind(rows, kind)
        for sources in unique(row.sources for row in of_method):
            for task, role in zip(sources, ("forgotten", _control(results, sources)), strict=False):
                mine = where(of_method, sources=sources, task=task)
                head = (study.joined(sources), study.named(kind), study.short(task), role)
                scores.append((*head, *(cell(where(mine, scale=scale)) for scale in scales)))
                lost = (value(_drops(mine, scale), signed=True) or MISSING for scale in lost_scales)
                drops.append((*head, *lost))
                expected += len(_scales(of_method)) * len({_run(row) for row in of_method})
    head = ("forget + control", "method", "scored on", "which is")
    note = (
        "Columns: factor of the subtracted vector, or of the steps of gradient ascent. Mean and deviation over runs "
        "(an initialization, and the one that the vector was trained from). "
        f"{present(len(rows), expected)} {made_from(NAME)}"
    )
    return [
        Table(
            "Drop on the forgotten task and on the control",
            (*head, *(f"{scale:g}" for scale in lost_scales)),
            drops,
            note=f"Exact match at factor 0 minus at the factor, in points, within each run. {note}",
            name="negation_drop",
        ),
        Table(
            "Exact match after subtracting",
            (*head, *(f"{scale:g}" for scale in scales)),
            scores,
            note=f"Percent. {note}",
            name="negation",
        ),
    ]


def _control(results: Results, sources: Sequence[str]) -> str:
    """What the second of two tasks is to the first."""
    related = any(set(sources) <= set(family.sources) for family in results.study.families)
    return "control" if related else "control, another family"


def _figure(results: Results, rows: Sequence[Row]) -> Figure:
    """Scores by factor, a panel a method and task to forget."""
    panels = []
    for kind in kinds(rows):
        mine = of_kind(rows, kind)
        for task in results.in_order(row.sources[0] for row in mine):
            pair = [row for row in mine if row.sources[0] == task]
            lines = {}
            for role, part in (
                ("the task to forget", [row for row in pair if row.task == task]),
                ("controls", [row for row in pair if row.task != task]),
            ):
                points = [(scale, cell(where(part, scale=scale), unit=1)) for scale in _scales(part)]
                lines[role] = figures.line_through(points)
            title = f"{results.study.short(task)}: {results.study.named(kind)}"
            panels.append(figures.LinePanel(title, lines))
    size = (3.8, 2.3) if len(panels) > 1 else (7.2, 3.2)
    drawing = figures.line_panels(panels, "factor of what is subtracted", "exact match", columns=2, size=size)
    caption = (
        "A panel is a task that is to be forgotten and a method; mean and bars of one deviation over runs, for "
        f"controls over control tasks too. {made_from(NAME)}"
    )
    return Figure(drawing, caption, "negation")


def _section(results: Results) -> Section:
    """Drops by factor of the subtracted vector, and the curves."""
    heading = NegationExperiment.title
    rows = results.of(NAME, "exact_match")
    if not rows:
        return Section(heading, not_run(NAME))
    text = (
        "A vector is negated and added, or the prompt is trained to be wrong (gradient ascent); the same on a control "
        "task shows what any disturbance of that size costs."
    )
    costs = cost_table(results, NAME)
    return Section(heading, text, [_figure(results, rows)], [*_tables(results, rows), *([costs] if costs else [])])
