"""The experiments of the protocol as cells: each is one job, and what its numbers are the numbers of.

A cell is all that planning, running and reporting need; the numbers come from `tpv.studies.collect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Literal

from tpv.studies.jobs import (
    Attend,
    Blend,
    Compare,
    Data,
    Job,
    Measure,
    Member,
    Prompt,
    Score,
    Search,
    Start,
    Train,
    Vector,
    Vectors,
    Zero,
)
from tpv.studies.settings import Config, Family, Mode, VectorMode


@dataclass(frozen=True)
class Cell:
    """One job of an experiment; the other fields become those of its `tpv.studies.records.Row`s."""

    experiment: str
    job: Job
    method: str
    task: str = ""
    sources: tuple[str, ...] = ()
    init_seed: int = 0
    shots: int | None = None
    scale: float | None = None
    vector_seed: int | None = None


PLAIN = "plain sum: "  # and the mode of its vectors: what sums that nothing was searched for are called
ORDINARY: Literal["ordinary"] = "ordinary"


def source_prompt(config: Config, task: str, seed: int) -> Train:
    """A source task's prompt from one start."""
    return Train(Data((task,)), Start(seed), config.source_recipe(task))


def trained_vector(config: Config, mode: Mode, task: str, seed: int) -> Vector:
    """A source task's vector: of its tuned prompt (mode `ordinary`), or one that was trained as a vector."""
    if mode == ORDINARY:
        return source_prompt(config, task, seed)
    settings = config.vectors
    return Member(
        Vectors(config.source_tasks, mode, seed, config.vector_recipe(mode), settings.scales, settings.draws or None),
        task,
    )


def _modes(config: Config, seed: int) -> tuple[VectorMode, ...]:
    """The modes in which vectors are trained with a seed."""
    return config.vectors.modes if seed in config.vector_starts else ()


def home_of(mode: Mode, seed: int) -> Start | Zero:
    """The start that vectors of a mode are put on: zero, where that is where they come from, else a drawn one."""
    return Zero() if mode == "fixed" else Start(seed)


def blend(start: Start | Zero | Train, terms: list[tuple[float, Vector]]) -> Prompt:
    """The sum, equal vectors put together and zeros left out, so that equal prompts are equal jobs."""
    total: dict[Vector, float] = {}
    for scale, vector in terms:
        total[vector] = total.get(vector, 0.0) + scale
    left = tuple((scale, vector) for vector, scale in total.items() if scale != 0.0)
    return Blend(start, left) if left else start


def sources(config: Config) -> Iterator[Cell]:
    """Every source task's prompt from every start, and the starts themselves."""
    for task in config.source_tasks:
        for seed in config.seeds.starts:
            tuned = source_prompt(config, task, seed)
            yield Cell("sources", Score(tuned, task), "tuned", task, (task,), seed)
            yield Cell("sources", Score(Start(seed), task), "untuned", task, (), seed)


def cross_initialisation(config: Config) -> Iterator[Cell]:
    """Each vector on every start (RQ1a, Table 1); on its own start it is the tuned prompt."""
    for task in config.source_tasks:
        for home in config.seeds.starts:
            tuned = source_prompt(config, task, home)
            for seed in config.seeds.starts:
                prompt = tuned if seed == home else blend(Start(seed), [(1.0, tuned)])
                yield Cell(
                    "cross_initialisation",
                    Score(prompt, task),
                    "tuned" if seed == home else "moved",
                    task,
                    (task,),
                    seed,
                    scale=1.0,
                    vector_seed=home,
                )
            for mode in _modes(config, home):
                vector = trained_vector(config, mode, task, home)
                elsewhere = [seed for seed in config.seeds.starts if seed != home] or [home]
                begins: list[tuple[str, Start | Zero, int]] = [(mode, Start(seed), seed) for seed in elsewhere]
                if mode == "fixed":
                    begins.append((f"{mode}, at home", Zero(), home))
                for method, start, seed in begins:
                    score = Score(blend(start, [(1.0, vector)]), task)
                    yield Cell("cross_initialisation", score, method, task, (task,), seed, scale=1.0, vector_seed=home)


def similarity(config: Config) -> Iterator[Cell]:
    """Cosines of all source prompts and vectors (RQ1b, figures 2, 3, 6, 7)."""
    prompts = tuple(source_prompt(config, task, seed) for task in config.source_tasks for seed in config.seeds.starts)
    if len(prompts) > 1:
        yield Cell("similarity", Compare(prompts), "cosine")
        for mode in config.vectors.modes:
            vectors = tuple(
                trained_vector(config, mode, task, seed)
                for task in config.source_tasks
                for seed in config.vector_starts
            )
            yield Cell("similarity", Compare(vectors), f"{mode} vectors")


def combination(config: Config) -> Iterator[Cell]:
    """All sums of two (or more) source vectors (RQ2, figures 4, 8); with other vectors, all as they are, too."""
    for size in config.combination.sizes:
        for chosen in combinations(config.source_tasks, size):
            for seed in config.combined_starts:
                vectors = tuple(source_prompt(config, task, seed) for task in chosen)
                job = Search(Start(seed), vectors, config.combination.scales)
                yield Cell("combination", job, "sum", sources=chosen, init_seed=seed)
                if _modes(config, seed):
                    yield from _plain_sums(config, chosen, seed)


def _plain_sums(config: Config, chosen: tuple[str, ...], seed: int) -> Iterator[Cell]:
    """A sum with lambda 1 and no search, for vectors of every mode, scored on each of its tasks.

    Ordinary vectors come from one start, which they share: on that start, and on the next one.
    """
    starts = config.seeds.starts
    other = starts[(starts.index(seed) + 1) % len(starts)]
    settings: list[tuple[Mode, str, Start | Zero, int]] = [(ORDINARY, f"{ORDINARY}, at home", Start(seed), seed)]
    settings += [(ORDINARY, ORDINARY, Start(other), other)] * (other != seed)
    for trained in config.vectors.modes:
        settings.append((trained, trained, Start(other), other))
        if trained == "fixed":
            settings.append((trained, f"{trained}, at home", Zero(), seed))
    for mode, method, start, begin in settings:
        prompt = blend(start, [(1.0, trained_vector(config, mode, task, seed)) for task in chosen])
        for task in chosen:
            yield Cell(
                "combination", Score(prompt, task), f"{PLAIN}{method}", task, chosen, begin, scale=1.0, vector_seed=seed
            )


def transfer(config: Config) -> Iterator[Cell]:
    """New tasks by shots, methods and starts (Tables 2, 4; figures 5, 9)."""
    for family in config.families:
        for target in family.targets:
            for shots in config.shots_of(family):
                for method, used, seed, start in _beginnings(config, family):
                    if isinstance(start, Attend):
                        job: Prompt | Attend = _attempt(config, family, start, shots, seed)
                    elif shots == 0:
                        job = start
                    else:
                        data = _few_shot(config, target, shots, seed)
                        job = Train(data, start, config.few_shot_recipe(shots))
                    yield Cell("transfer", Score(job, target), method, target, used, seed, shots)


def _few_shot(config: Config, target: str, shots: int, seed: int) -> Data:
    return Data((target,), shots, config.sample_seed(seed), config.few_shot_validation)


def _attempt(config: Config, family: Family, untrained: Attend, shots: int, seed: int) -> Attend:
    if shots == 0:
        return untrained
    data = tuple(_few_shot(config, target, shots, seed) for target in family.targets)
    return replace(untrained, targets=data, recipe=config.attempt_recipe(shots))


def _beginnings(config: Config, family: Family) -> Iterator[tuple[str, tuple[str, ...], int, Prompt | Attend]]:
    """Where a target's prompt can start: method, sources used, seed, and the start itself."""
    methods, several = config.transfer.methods, len(family.sources) > 1
    for seed in config.seeds.starts:
        own = [source_prompt(config, task, seed) for task in family.sources]
        if "random" in methods:
            yield "random", (), seed, Start(seed)
        if "spot" in methods:
            for task, prompt in zip(family.sources, own, strict=True):
                yield f"SPoT {task}", (task,), seed, prompt
        if "sum" in methods and several:
            for mode in (ORDINARY, *_modes(config, seed)):
                vectors = [trained_vector(config, mode, task, seed) for task in family.sources]
                start = blend(home_of(mode, seed), [(1.0, vector) for vector in vectors])
                yield "sum" if mode == ORDINARY else f"sum, {mode}", family.sources, seed, start
        if seed not in config.baseline_starts:
            continue
        if "spot_multi" in methods and several:
            yield (
                "SPoT multi-task",
                family.sources,
                seed,
                Train(Data(family.sources), Start(seed), config.joint_recipe()),
            )
        if "attempt" in methods:
            targets = tuple(Data((target,)) for target in family.targets)
            untrained = Attend(targets, tuple(own), None, seed, config.transfer.temperature)
            yield "ATTEMPT", family.sources, seed, untrained


def negation(config: Config) -> Iterator[Cell]:
    """Subtract one task's vector; score that task and another as control (future work of the paper)."""
    starts = config.seeds.starts
    pairs = [pair for family in config.families for pair in permutations(family.sources, 2)]
    for method in config.negation.methods:
        base, _, whose = method.partition(" - ")
        if whose.startswith("other") and len(starts) < 2:
            continue
        for forgotten, control in pairs:
            for i, seed in enumerate(starts):
                other = starts[(i + 1) % len(starts)] if whose.startswith("other") else seed
                for mode in (ORDINARY, *(_modes(config, seed) if method == "sum - own vector" else ())):
                    own = trained_vector(config, mode, forgotten, seed)
                    added = [own, trained_vector(config, mode, control, seed)] if base == "sum" else []
                    start = home_of(mode, seed)
                    for scale in config.negation.scales:
                        terms = [(config.negation.sum_scale, vector) for vector in added]
                        terms.append((-scale, trained_vector(config, mode, forgotten, other)))
                        prompt = blend(start if base == "sum" else source_prompt(config, forgotten, seed), terms)
                        name = method if mode == ORDINARY else f"{method}, {mode}"
                        for task in (forgotten, control):
                            yield Cell(
                                "negation",
                                Score(prompt, task),
                                name,
                                task,
                                (forgotten, control),
                                seed,
                                scale=scale,
                                vector_seed=other,
                            )


def cost(config: Config) -> Iterator[Cell]:
    """What has to be trained when one source joins a pool of n (Table 3, made measurable)."""
    names, seed = config.source_tasks, config.seeds.starts[0]
    family = next((family for family in config.families if family.targets), None)
    for size in config.cost.pools or range(1, len(names)):
        if size >= len(names):
            continue
        pool, added = names[: size + 1], names[size]
        alone = source_prompt(config, added, seed)
        trainings: dict[str, tuple[Train | Attend, ...]] = {
            "vectors": (alone,),
            "SPoT multi-task": (Train(Data(pool), Start(seed), config.joint_recipe()),),
        }
        shots = max(config.transfer.shots)
        if family and shots:
            own = tuple(source_prompt(config, task, seed) for task in pool)
            targets = tuple(Data((target,)) for target in family.targets)
            untrained = Attend(targets, own, None, seed, config.transfer.temperature)
            trainings["ATTEMPT"] = (alone, _attempt(config, family, untrained, shots, seed))
        for method, jobs in trainings.items():
            yield Cell("cost", Measure(jobs, config.cost.steps), method, added, pool, seed, shots=size)


EXPERIMENTS: dict[str, Callable[[Config], Iterator[Cell]]] = {
    "sources": sources,
    "cross_initialisation": cross_initialisation,
    "similarity": similarity,
    "combination": combination,
    "transfer": transfer,
    "negation": negation,
    "cost": cost,
}


def cells(config: Config) -> list[Cell]:
    """All cells of a config, experiment by experiment."""
    return [cell for name, make in EXPERIMENTS.items() if name in config.experiments for cell in make(config)]
