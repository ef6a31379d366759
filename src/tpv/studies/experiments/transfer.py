"""New tasks by shots, methods and initializations (Tables 2, 4; figures 5, 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tpv.errors import TpvError, did_you_mean
from tpv.registry import register
from tpv.reporting.intervals import Group
from tpv.reporting.page import Chapter
from tpv.reporting.records import ORDINARY, as_json
from tpv.reporting.results import Results, kinds, of_kind, where
from tpv.reporting.targets import NAME, few, section
from tpv.studies import cells
from tpv.studies.expressions import Data, Initial, Merged, Stored, blend
from tpv.studies.jobs.attempt import Attend
from tpv.studies.jobs.base import Sizes
from tpv.studies.jobs.race import METHOD, Race, candidates_of, name_of
from tpv.studies.jobs.score import Score
from tpv.studies.jobs.train import Train
from tpv.studies.method_rows import adapt_job, misfits, row_names
from tpv.studies.parts import Family
from tpv.studies.settings import Config
from tpv.studies.tables import (
    ByShots,
    Count,
    Distinct,
    FewShot,
    MergeChoice,
    MethodChoice,
    Settings,
    Switch,
    Whole,
    chosen_method,
)
from tpv.studies.vectors import base_of, modes_of, source_prompt, trained_vector
from tpv.training.recipe import Recipe

BUILTIN = ("random", "spot", "spot_multi", "attempt", "sum", "transfer")


def _row(value: Any) -> str | MethodChoice:
    """A method that a config names, or a table of one with its parameters."""
    if isinstance(value, MethodChoice) or (isinstance(value, str) and value in BUILTIN):
        return value
    table = {"method": value} if isinstance(value, str) else value
    name = table.get("method") if isinstance(table, dict) else None
    if not isinstance(name, str):
        raise ValueError("must be the name of a method, or a table with the name as `method`")
    if name in BUILTIN:
        raise ValueError(f"{name!r} has no parameters here, write its name alone")
    if name not in row_names():
        raise ValueError(f"unknown value {name!r:.60}, {did_you_mean(name, [*BUILTIN, *row_names()])}")
    choice = chosen_method(table)
    return choice if choice.given else name


MethodRow = Annotated[Any, BeforeValidator(_row)]


class Transfer(Settings):
    """Targets by shots, methods and initializations.

    Attributes:
        shots: numbers of training examples in total; 0 scores without training.
        methods: how a target's prompt is initialized. `spot` gives one row per source, `spot_multi` one prompt trained
            on all sources of the family. `transfer`, which is not in the paper, races the candidates of `tpv transfer`
            from the vectors of all families' sources and of the config's `library`, and gives a row for what it chooses
            and one for each candidate. Any registered method that trains prompts or learns from sources gives a
            row, too, by name or as a table of its parameters: `{ method = "spot_retrieval", top = 3 }`.
        pool: where a registered method finds its sources: the target's `family`, or the families of `all`.
        merges: ways to merge the sources' vectors other than a sum, as in `[combination]`. Each adds rows.
        baseline_inits: run `spot_multi`, `attempt` and methods that learn from sources from this many of the
            initializations; 0 for all.
        vary_sample: draw another sample for each initialization; otherwise all use the same sample.
        validation_rows: keep only this many validation examples; 0 for all.
        training: how few-shot prompts train.
        batch_size: pairs of shots and rows per step, ascending: up to so many shots, so many rows.
        attempt_training: how ATTEMPT trains.
        attempt_schedule: as `batch_size`, with the number of epochs as a third value.
        budget: budget of races.
        candidates: the candidates that race; empty for those of the budget.
        apart: vectors to keep out of a target's races, by target; for example those of tasks that share its texts.
        temperature: temperature of ATTEMPT's attention; 0 for e times the model's width.
    """

    shots: Annotated[tuple[Whole, ...], Field(min_length=1), Distinct] = (0, 100)
    methods: Annotated[tuple[MethodRow, ...], Field(min_length=1), Distinct] = (
        "random",
        "spot",
        "spot_multi",
        "attempt",
        "sum",
    )
    pool: Literal["family", "all"] = "family"
    merges: tuple[MergeChoice, ...] = ()
    baseline_inits: Whole = 3
    vary_sample: Switch = False
    validation_rows: Whole = 0
    training: FewShot = Field(default_factory=dict)
    batch_size: tuple[tuple[Count, Count], ...] = ((25, 2), (250, 8), (1000, 16))
    attempt_training: ByShots = Field(default_factory=dict)
    attempt_schedule: tuple[tuple[Count, Count, Count], ...] = ((25, 2, 30), (250, 8, 20), (1000, 16, 10))
    temperature: Annotated[float, Field(ge=0, le=1e9, strict=True)] = 0
    budget: Literal["quick", "standard", "thorough"] = "quick"
    candidates: Annotated[tuple[str, ...], Distinct] = ()
    apart: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def registered(self) -> list[MethodChoice]:
        """The registered methods among `methods`."""
        own = [one for one in self.methods if one not in BUILTIN]
        return [chosen_method({"method": one}) if isinstance(one, str) else one for one in own]

    @field_validator("candidates")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in register.candidate:
                raise ValueError(f"unknown value {name!r}, {did_you_mean(name, register.candidate.names())}")
        return names

    @model_validator(mode="after")
    def _covered(self) -> Self:
        for name in ("batch_size", "attempt_schedule"):
            limits = [row[0] for row in getattr(self, name)]
            if not limits or limits != sorted(set(limits)) or limits[-1] < max(self.shots):
                raise ValueError(f"{name} must list ascending numbers of shots up to {max(self.shots)}, lists {limits}")
        return self


@register.experiment(NAME, parameters=Transfer, order=50)
class TransferExperiment:
    """New tasks by shots, methods and initializations."""

    title: ClassVar[str] = "Transfer to target tasks (Tables 2 and 4, figures 5 and 9)"
    plan_split: ClassVar[tuple[str, ...]] = ("method", "mode", "merge", "shots")

    @staticmethod
    def cells(config: Config) -> Iterator[cells.Cell]:
        """Every target, number of shots and beginning."""
        for family in config.families:
            for target in family.targets:
                for shots in shots_of(config, family):
                    for begin in _beginnings(config, family):
                        job = _trained(config, family, target, shots, begin)
                        yield replace(begin, job=Score(job, target), task=target, shots=shots, costed=shots > 0)
                    yield from _by_methods(config, family, target, shots)
        if METHOD in config.table(Transfer).methods:
            yield from _races(config)

    @staticmethod
    def section(results: Results) -> Chapter:
        """Tables and figures; the verdicts of the two-shots tables, and those over all shots."""
        return section(results, TransferExperiment.title)

    @staticmethod
    def groups(results: Results) -> Iterator[Group]:
        """The scores that get an interval: those at the shots of Tables 2 and 4."""
        every = results.of(NAME, "exact_match")
        for shots in few(sorted({row.shots or 0 for row in every})):
            for task in results.in_order(row.task for row in where(every, shots=shots)):
                metric = results.study.tasks[task].metric
                rows = where(results.of(NAME, metric), task=task, shots=shots)
                for kind in kinds(rows):
                    named = results.study.named(kind)
                    yield Group(f"target, {shots} shots", task, named, metric, of_kind(rows, kind))

    @staticmethod
    def mistakes(config: Config) -> Iterator[str]:
        """Methods that do not fit the prompts or the sources."""
        settings = config.table(Transfer)
        pools = [family.sources for family in config.families if family.targets]
        fewest = len(config.source_tasks) if settings.pool == "all" else min(map(len, pools), default=0)
        for mistake in misfits(settings.registered, config.prompt.tokens, fewest) if pools else ():
            yield f"transfer.methods: {mistake}"

    @staticmethod
    def check(config: Config, sizes: Sizes) -> None:
        """Refuse shots that there are no examples for.

        Raises:
            TpvError: naming the target, the shots and the rows.
        """
        for family in config.families:
            for target in family.targets:
                most, rows = max(shots_of(config, family), default=0), sizes[target]["train"]
                if most > rows:
                    raise TpvError(
                        f"transfer.shots: target {target!r} has too few training examples",
                        expected=f"at most {rows}",
                        got=most,
                        fix="lower transfer.shots, or raise limits.train",
                    )


def shots_of(config: Config, family: Family) -> tuple[int, ...]:
    """Shots of a family's targets; 0 is always possible."""
    return tuple(shots for shots in config.table(Transfer).shots if shots == 0 or shots >= family.min_shots)


def few_shot_recipe(config: Config, shots: int) -> Recipe:
    """How a target's prompt is trained with so many examples."""
    settings = config.table(Transfer)
    rows = next(rows for most, rows in settings.batch_size if shots <= most)
    return config.recipe({**settings.training, "batch_size": rows})


def attempt_recipe(config: Config, shots: int) -> Recipe:
    """How ATTEMPT is trained with so many examples of each target."""
    settings = config.table(Transfer)
    _, rows, epochs = next(row for row in settings.attempt_schedule if shots <= row[0])
    return config.recipe({**settings.attempt_training, "batch_size": rows, "epochs": epochs})


def few_shot_validation(config: Config) -> int | None:
    """How many validation rows a few-shot run has; None for all."""
    return 250 if config.quirks.few_shot_validation else config.table(Transfer).validation_rows or None


def sample_seed(config: Config, seed: int) -> int:
    """Seed of the few-shot draw of a run from this initialization."""
    vary = config.table(Transfer).vary_sample and not config.quirks.few_shot_validation
    return config.seeds.sample + seed if vary else config.seeds.sample


def _few_shot(config: Config, target: str, shots: int, seed: int) -> Data:
    return Data((target,), shots, sample_seed(config, seed), few_shot_validation(config))


def attempt_job(config: Config, family: Family, untrained: Attend, shots: int, seed: int) -> Attend:
    """An ATTEMPT model, trained with so many examples of each of a family's targets."""
    if shots == 0:
        return untrained
    data = tuple(_few_shot(config, target, shots, seed) for target in family.targets)
    return replace(untrained, targets=data, recipe=attempt_recipe(config, shots))


def _trained(config: Config, family: Family, target: str, shots: int, begin: cells.Cell) -> Any:
    """What a beginning becomes with so many examples."""
    start: Any = begin.job
    if begin.method == "attempt":
        return attempt_job(config, family, start, shots, begin.init_seed)
    if shots == 0:
        return start
    data = _few_shot(config, target, shots, begin.init_seed)
    return Train(data, start, few_shot_recipe(config, shots))


def _by_methods(config: Config, family: Family, target: str, shots: int) -> Iterator[cells.Cell]:
    """A target's prompt by each registered method that is named."""
    settings = config.table(Transfer)
    pool = family.sources if settings.pool == "family" else config.source_tasks
    for seed in config.seeds.starts:
        data = _few_shot(config, target, shots, seed) if shots else Data((target,))
        for choice in settings.registered:
            about = register.method[choice.method].thing
            learns = about.kind != "prompt"
            if learns and seed not in config.seeds.first(settings.baseline_inits):
                continue
            sources = tuple(source_prompt(config, task, seed) for task in pool) if learns else ()
            job: Any
            if about.kind == "mixture":
                recipe = attempt_recipe(config, shots) if shots else None
                job = Attend((data,), sources, recipe, seed, dict(choice.parameters).get("temperature") or 0)
            else:
                recipe = few_shot_recipe(config, shots) if shots else None
                job = adapt_job(config, choice, data, sources, seed, recipe)
            if job is not None:
                used = tuple(pool) if learns else ()
                told = as_json(choice.given)
                yield cells.Cell(
                    NAME,
                    Score(job, target),
                    choice.method,
                    target,
                    used,
                    seed,
                    shots,
                    parameters=told,
                    coverage=True,
                    costed=shots > 0,
                )


def _races(config: Config) -> Iterator[cells.Cell]:
    """What `tpv transfer` chooses, and the best of each of its candidates: sample by sample, so that a run that is cut
    short has something of every target."""
    settings = config.table(Transfer)
    candidates = candidates_of(settings.budget, settings.candidates)
    stored = [Stored(name, digest) for name, digest in stored_vectors(config).items()]
    pairs = [
        (target, shots) for family in config.families for target in family.targets for shots in shots_of(config, family)
    ]
    for seed in config.seeds.starts:
        for mode in (ORDINARY, *modes_of(config, seed)):
            trained = [trained_vector(config, mode, task, seed) for task in config.source_tasks]
            vectors = {name_of(vector): vector for vector in (*trained, *stored)}
            for target, shots in pairs:
                if not shots:
                    continue
                apart = {target, *settings.apart.get(target, ())}
                library = tuple(vector for name, vector in vectors.items() if name not in apart)
                job = Race(_few_shot(config, target, shots, seed), library, settings.budget, candidates, seed)
                cell = cells.Cell(
                    NAME,
                    job,
                    METHOD,
                    sources=tuple(map(name_of, library)),
                    init_seed=seed,
                    mode=mode,
                    task=target,
                    shots=shots,
                )
                yield cell
                yield from (replace(cell, method=f"{METHOD}_{name}") for name in candidates)


def stored_vectors(config: Config) -> dict[str, str]:
    """Names and digests of the vectors of the config's library, as they are or as a run began with them."""
    return dict(_stored(config.library)) if config.library else config.stored


@cache
def _stored(folder: str) -> list[tuple[str, str]]:
    """Names and digests of the vectors in a folder."""
    from tpv.prompts.library import Library

    table = Library(folder).describe()
    return list(zip(table["name"].to_pylist(), table["digest"].to_pylist(), strict=True))


def _beginnings(config: Config, family: Family) -> Iterator[cells.Cell]:
    """The initializations of a target's prompt: cells whose job is that prompt, or the untrained ATTEMPT model."""
    settings, several = config.table(Transfer), len(family.sources) > 1
    methods = settings.methods

    def begin(start: Any, method: str, used: tuple[str, ...], seed: int, **more: Any) -> cells.Cell:
        return cells.Cell(NAME, start, method, sources=used, init_seed=seed, coverage=True, **more)

    for seed in config.seeds.starts:
        own = [source_prompt(config, task, seed) for task in family.sources]
        if "random" in methods:
            yield begin(Initial(seed), "random", (), seed)
        if "spot" in methods:
            for task, prompt in zip(family.sources, own, strict=True):
                yield begin(prompt, "spot", (task,), seed)
        for mode in (ORDINARY, *modes_of(config, seed)) if several else ():
            vectors = tuple(trained_vector(config, mode, task, seed) for task in family.sources)
            base = base_of(mode, seed)
            if "sum" in methods:
                summed = blend(base, [(1.0, vector) for vector in vectors])
                yield begin(summed, "sum", family.sources, seed, mode=mode)
            for merge in settings.merges:
                merged = blend(base, [(1.0, Merged(vectors, merge.method, merge.parameters))])
                told = as_json(merge.given)
                yield begin(merged, "merge", family.sources, seed, mode=mode, merge=merge.method, parameters=told)
        if seed not in config.seeds.first(settings.baseline_inits):
            continue
        if "spot_multi" in methods and several:
            joint = Train(Data(family.sources), Initial(seed), config.joint_recipe())
            yield begin(joint, "spot_multi", family.sources, seed)
        if "attempt" in methods:
            targets = tuple(Data((target,)) for target in family.targets)
            untrained = Attend(targets, tuple(own), None, seed, settings.temperature)
            yield begin(untrained, "attempt", family.sources, seed)
