"""Which recipe suits few rows? Prompts tuned on a few rows of real tasks, judged on validation rows.

python benchmarks/few_rows.py [--data ../shared/data] [--library vectors/] [--tasks sst2,trec] [--out runs/few]

Each setting (steps, learning rate, batch, method, proximity) trains from a random initialization and, where there is a
library, from its likeliest source, the task's own vector left out. A line of few.jsonl is one of them; what is there
is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tpv
from tpv.evaluation.each import each_on_all
from tpv.outputs.ranking import gold_losses
from tpv.tasks import Task
from tpv.transfers import problem_of
from tpv.transfers.problem import Problem

LENGTH = 64  # tokens of a text


def settings(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every combination of what is asked for."""
    axes = {
        "steps": map(int, options.steps.split(",")),
        "lr": map(float, options.lr.split(",")),
        "method": options.methods.split(","),
        "proximity": map(float, options.proximity.split(",")),
        "batch": map(int, options.batch.split(",")),
    }
    yield from (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def tuned(problem: Problem, task: Task, starts: dict[str, tpv.SoftPrompt], setting: dict[str, Any], seed: int) -> Any:
    """The prompts of a setting, one for each start."""
    recipe = tpv.Recipe(
        steps=setting["steps"],
        lr=setting["lr"],
        batch_size=min(setting["batch"], len(task.examples("train"))),
        warmup_steps=max(1, setting["steps"] // 10),
        select="last",
        max_input_length=LENGTH,
        proximity=setting["proximity"],
        seed=seed,
    )
    return tpv.fit(
        problem.backbone, [task] * len(starts), list(starts.values()), recipe, method=setting["method"], callback=quiet
    )


def quiet(_: object) -> None:
    """No bar."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="for tasks of the hub")
    parser.add_argument("--library", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tasks", default="sst2,trec")
    parser.add_argument("--shots", default="16")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--rows", type=int, default=200, help="validation rows")
    parser.add_argument("--steps", default="20")
    parser.add_argument("--lr", default="0.014,0.04,0.12")
    parser.add_argument("--methods", default="prompt_tuning")
    parser.add_argument("--proximity", default="0")
    parser.add_argument("--batch", default="16")
    parser.add_argument("--out", type=Path, default=Path("runs/few"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "few.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {json.dumps(one["about"]) for one in done}
    backbone = tpv.load_backbone(options.model)
    library = tpv.Library(str(options.library), model=backbone) if options.library else {}
    for sample, shots, name in itertools.product(
        range(options.samples), map(int, options.shots.split(",")), options.tasks.split(",")
    ):
        whole = tpv.load_task(name, data_dir=options.data).limited({"validation": options.rows}, 0)
        own = {other: library[other] for other in library if other != name}
        problem, _ = problem_of(
            backbone,
            whole,
            own or None,
            shots=shots,
            budget="quick",
            seed=sample,
            max_input_length=LENGTH,
            candidates=["probe"],
        )
        starts = {"random": problem.init()} | {one: problem.start(own[one]) for one in problem.best(1)}
        judged = whole.examples("validation")
        gold = np.array([row.label for row in judged])
        for setting in settings(options):
            about = {"task": name, "shots": shots, "sample": sample, **setting}
            if json.dumps(about) in known:
                continue
            began = time.perf_counter()
            prompts = tuned(problem, problem.task, starts, setting, sample)
            spent = time.perf_counter() - began
            for start, mine in zip(starts, each_on_all(backbone, whole, prompts, judged, LENGTH), strict=True):
                row = {
                    "about": about,
                    "start": start,
                    "accuracy": 100 * float((mine.argmax(1) == gold).mean()),
                    "loss": float(gold_losses(mine, gold).mean()),
                    "seconds": spent,
                }
                done.append(row)
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    print(table(done))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean accuracy and log loss of each setting over tasks and samples, from a random start and from a source."""
    lines = ["| shots | setting | start | accuracy | log loss | of |", "|--:|---|---|--:|--:|--:|"]
    groups: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        about = {key: value for key, value in row["about"].items() if key not in ("task", "shots", "sample")}
        start = row["start"] if row["start"] == "random" else "source"
        groups.setdefault((row["about"]["shots"], json.dumps(about), start), []).append(row)
    for (shots, setting, start), several in sorted(groups.items()):
        accuracy, loss = (statistics.mean(row[key] for row in several) for key in ("accuracy", "loss"))
        lines.append(f"| {shots} | {setting} | {start} | {accuracy:.1f} | {loss:.3f} | {len(several)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
