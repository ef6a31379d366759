"""The method from end to end on the embedded model: what `tpv quickstart` runs.

Everything that is printed, drawn and written to `results.parquet` comes from `tpv.studies.records.Row`s, one a score.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from tpv import mini
from tpv.evaluation.score import evaluate
from tpv.models import Backbone, load_backbone
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.reporting import quickstart as report
from tpv.studies.records import Row, rows_of, write_results
from tpv.tasks import Task, load_task
from tpv.training.loop import fit
from tpv.training.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console

NUM_TOKENS = 20
NUM_INITS = 2
SHOTS = 100
SOURCE_RECIPE = Recipe(steps=100, batch_size=16, eval_every=100)
FEW_SHOT_RECIPE = Recipe(steps=60, batch_size=8, eval_every=60)
LAMBDAS = tuple(round(0.1 * i, 1) for i in range(11))
PAIRS = (("mnli", "qnli"), ("dbpedia", "trec"), ("sst2", "yelp"))
TARGETS = {"snli": ("mnli", "qnli"), "imdb": ("sst2", "yelp")}


@dataclass
class Study:
    """What the steps below share and fill in."""

    backbone: Backbone
    tasks: dict[str, Task]
    inits: list[SoftPrompt]
    tuned: dict[tuple[str, int], SoftPrompt]
    vectors: dict[tuple[str, int], TaskPromptVector]
    rows: list[Row]
    seeds: list[int]  # of the starts


def tune_sources(study: Study, seed: int) -> None:
    """Every source task from every start, in one bank; the data order is one for all, so starts alone differ."""
    jobs = [(name, i) for name in mini.SOURCES for i in range(len(study.inits))]
    prompts = fit(
        study.backbone,
        [study.tasks[name] for name, _ in jobs],
        [study.inits[i] for _, i in jobs],
        replace(SOURCE_RECIPE, seed=seed),
    )
    for (name, i), prompt in zip(jobs, prompts, strict=True):
        study.tuned[name, i], study.vectors[name, i] = prompt, prompt - study.inits[i]


def cross_initialise(study: Study) -> None:
    """Untuned, tuned, and each vector on every *other* start (RQ1, Table 1)."""
    jobs: list[tuple[str, str, int, SoftPrompt]] = []
    for (name, i), vector in study.vectors.items():
        jobs += [("untuned", name, i, study.inits[i]), ("tuned", name, i, study.tuned[name, i])]
        jobs += [("moved", name, j, init + vector) for j, init in enumerate(study.inits) if j != i]
    scores = evaluate(study.backbone, [study.tasks[name] for _, name, _, _ in jobs], [prompt for *_, prompt in jobs])
    for (method, name, i, _), score in zip(jobs, scores, strict=True):
        study.rows += rows_of(
            score,
            experiment="cross-initialisation",
            task=study.tasks[name],
            method=method,
            sources=[] if method == "untuned" else [study.tasks[name].name],
            init_seed=study.seeds[i],
            scale=None if method == "untuned" else 1.0,
        )


def compare(study: Study) -> None:
    """Cosines between all vectors (figure 3); one row a pair."""
    for (one, i), (two, j) in combinations(study.vectors, 2):
        value = study.vectors[one, i].cosine(study.vectors[two, j])
        names = [study.tasks[one].name, study.tasks[two].name]
        method = f"seed {study.seeds[i]} v. seed {study.seeds[j]}"
        size = study.vectors[one, i].tensor.numel()
        study.rows.append(
            Row("similarity", names[0], method, "+".join(names), study.seeds[i], None, None, "cosine", value, size)
        )


def add_pairs(study: Study) -> None:
    """One pair a family: lambda by mean exact match on both validation sets, then both test sets (RQ2)."""
    for pair in PAIRS:
        tasks = [study.tasks[name] for name in pair]
        names = [task.name for task in tasks]
        for i, init in enumerate(study.inits):
            total = study.vectors[pair[0], i] + study.vectors[pair[1], i]
            prompts = [total.apply(init, scale) for scale in LAMBDAS]
            grid = evaluate(study.backbone, [t for t in tasks for _ in LAMBDAS], prompts * 2, "validation")
            means: dict[float, float] = {}
            for k, scale in enumerate(LAMBDAS):
                both = [grid[k], grid[k + len(LAMBDAS)]]
                means[scale] = sum(score.exact_match for score in both) / 2
                for task, score in zip(tasks, both, strict=True):
                    study.rows += rows_of(
                        score,
                        experiment="lambda search",
                        task=task,
                        method="sum",
                        sources=names,
                        init_seed=study.seeds[i],
                        scale=scale,
                    )
            best = max(LAMBDAS, key=lambda scale: means[scale])
            tested = evaluate(study.backbone, tasks, [total.apply(init, best)] * 2)
            for task, score in zip(tasks, tested, strict=True):
                study.rows += rows_of(
                    score,
                    experiment="combination",
                    task=task,
                    method="sum",
                    sources=names,
                    init_seed=study.seeds[i],
                    scale=best,
                )


def transfer(study: Study, seed: int) -> None:
    """Two targets at zero and few shots: random start, each source's prompt, the sum (Tables 2, 4)."""
    jobs: list[tuple[str, str, tuple[str, ...], int, SoftPrompt]] = []
    for target, (one, two) in TARGETS.items():
        for i, init in enumerate(study.inits):
            total = study.vectors[one, i] + study.vectors[two, i]
            jobs += [
                (target, "random", (), i, init),
                (target, f"SPoT {one}", (one,), i, study.tuned[one, i]),
                (target, f"SPoT {two}", (two,), i, study.tuned[two, i]),
                (target, "sum", (one, two), i, init + total),
            ]
    tasks = [study.tasks[target] for target, *_ in jobs]
    starts = [job[-1] for job in jobs]
    few = {target: study.tasks[target].few_shot(SHOTS, seed) for target in TARGETS}
    trained = fit(study.backbone, [few[job[0]] for job in jobs], starts, replace(FEW_SHOT_RECIPE, seed=seed))
    scores = evaluate(study.backbone, tasks * 2, starts + trained)
    for k, score in enumerate(scores):
        target, method, sources, i, _ = jobs[k % len(jobs)]
        study.rows += rows_of(
            score,
            experiment="transfer",
            task=study.tasks[target],
            method=method,
            sources=[study.tasks[name].name for name in sources],
            init_seed=study.seeds[i],
            shots=0 if k < len(jobs) else SHOTS,
            scale=1.0 if method == "sum" else None,
        )


def run(out: Path, *, seed: int, console: Console) -> list[Row]:
    """Run the whole demonstration into folder `out`; returns the rows of `results.parquet`."""
    started = time.perf_counter()
    backbone = load_backbone("mini")
    tasks = {name: load_task(f"mini/{name}") for name in (*mini.SOURCES, *TARGETS)}
    seeds = [seed + i for i in range(NUM_INITS)]
    inits = [SoftPrompt.sample(backbone, NUM_TOKENS, seed=start) for start in seeds]
    study = Study(backbone, tasks, inits, {}, {}, [], seeds)

    def stage(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - started:4.0f} s[/dim]  {text}")

    stage(f"tuning {len(mini.SOURCES)} source tasks from {NUM_INITS} starts each, in one bank")
    tune_sources(study, seed)
    stage("scoring: untuned, tuned, and every vector on the other start")
    cross_initialise(study)
    compare(study)
    stage("adding a pair of vectors per family, lambda chosen on validation data")
    add_pairs(study)
    stage(f"starting two new tasks from them, at 0 and {SHOTS} shots")
    transfer(study, seed)
    stage("writing results, vectors and report")
    for (name, i), vector in study.vectors.items():
        vector.save(out / "vectors" / f"{name}-init{seeds[i]}.safetensors")
    for i, init in enumerate(inits):
        init.save(out / "inits" / f"init{seeds[i]}.safetensors")
    write_results(study.rows, out / "results.parquet")
    summary = report.write(study.rows, out / "report.html", seconds=time.perf_counter() - started)
    for table in summary:
        console.print(table.as_rich())
    return study.rows
