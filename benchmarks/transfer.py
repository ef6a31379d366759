"""Does `tpv.transfer` choose well? Targets, samples and shots on a real model, every entrant judged on test rows.

python benchmarks/transfer.py --data ../shared/data --library vectors/ [--budget standard] [--out runs/transfer]

For each target, sample and number of shots: the race, as a user would run it, and then every entrant fitted to all rows
and scored on test rows, which the race never sees. So the choice can be compared with a random initialization, with
the probe, and with the entrant that hindsight would choose. A cell is a line of cells.jsonl; what is there is not run
again, so that a call resumes. `--table` writes transfer.md from the lines that are there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import tpv
from tpv.reporting.stats import bootstrap_mean
from tpv.tasks import Task
from tpv.transfers import Problem, problem_of
from tpv.transfers.judging import judged
from tpv.transfers.racing import Standing, race

TARGETS = ("imdb", "sst5", "scitail", "rte", "emotion", "snli")
FAMILY = {"sst5": {"sst5", "sst2"}, "snli": {"snli", "mnli"}}  # texts that a target shares with sources
RANDOM, PROBE = "random initialization, tuned", "probe"


def target_of(name: str, options: argparse.Namespace) -> Task:
    """A target's training rows, and those that entrants are judged on: test rows, or validation rows for choices."""
    task = tpv.load_task(name, data_dir=options.data)
    judged_on = task.limited({options.split: options.rows}, 0).examples(options.split)
    return replace(task, splits={"train": task.examples("train"), "test": judged_on})


def cell(
    backbone: tpv.Backbone, library: dict[str, tpv.TaskPromptVector], task: Task, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One race and the test scores of all that ran in it."""
    began = time.perf_counter()
    problem, entrants = problem_of(
        backbone,
        task,
        library,
        shots=options.shots_now,
        budget=options.budget,
        seed=seed,
        max_input_length=options.max_input_length,
        lr=options.lr,
    )
    standings = race(problem, entrants, None, lambda *_: None)
    raced = time.perf_counter() - began
    return {"race_seconds": raced, "entrants": scored(problem, standings, task), "ranking": ranking(problem)}


def ranking(problem: Problem) -> list[list[Any]]:
    """The sources with their losses, best first."""
    return [[one.name, one.loss, one.accuracy] for one in problem.ranking]


def scored(problem: Problem, standings: Sequence[Standing], task: Task) -> list[dict[str, Any]]:
    """Every entrant, fitted to all rows as the winner is, with its accuracy on the test rows; the race's order."""
    rows = task.examples("test")
    gold = np.array([row.label for row in rows])
    found = []
    for standing, answers in zip(standings, judged(problem, standings, rows), strict=True):
        hits = answers.greedy.numpy() == gold
        plain = answers.log_probs.numpy().argmax(1) == gold  # without the calibrator
        told = {"test": float(hits.mean()), "uncalibrated": float(plain.mean())}
        found.append({**standing.row(), **told, "hits": "".join(str(int(hit)) for hit in hits)})
    return found


def table(cells: Sequence[dict[str, Any]]) -> str:
    """By target and shots, means over samples: the choice, a random start, the probe, the best by hindsight."""
    lines = [
        "| target | shots | samples | chosen | random, tuned | probe | best by hindsight | gap to it | chosen were |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in cells:
        groups.setdefault((one["target"], one["shots"]), []).append(one)
    for (target, shots), several in sorted(groups.items()):
        names = set.intersection(*({role(row["entrant"], one) for row in one["entrants"]} for one in several))

        def mean(name: str, several: Sequence[dict[str, Any]] = several) -> float:
            return 100 * statistics.mean(
                next(row["test"] for row in one["entrants"] if role(row["entrant"], one) == name) for one in several
            )

        chosen = 100 * statistics.mean(one["entrants"][0]["test"] for one in several)
        by_name = {name: mean(name) for name in names}
        best = max(by_name, key=lambda name: by_name[name])
        were = ", ".join(one["entrants"][0]["entrant"] for one in several)
        random, probe = (f"{by_name[name]:.1f}" if name in by_name else "–" for name in (RANDOM, PROBE))
        cells_of = (target, str(shots), str(len(several)), f"{chosen:.1f}", random, probe)
        told = (f"{by_name[best]:.1f} ({best})", f"{chosen - by_name[best]:+.1f}", were)
        lines.append(f"| {' | '.join((*cells_of, *told))} |")
    return "\n".join([*lines, "", *overall(cells)])


def role(name: str, one: dict[str, Any]) -> str:
    """An entrant's name without that of a source, which differs between samples."""
    for place, (source, *_) in enumerate(one["ranking"], 1):
        if name.startswith(f"{source}, "):
            return f"source {place}, {name.removeprefix(f'{source}, ')}"
        if name == f"probe after {source}":
            return f"probe after source {place}"
    kind, of, rest = name.partition(" of ")
    return f"{kind}, {rest.rpartition(', ')[2]}" if of and kind in ("sum", "mean", "ties") else name


def overall(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The mean gain over a random start for each number of shots, with an interval over cells."""
    lines = []
    for shots in sorted({one["shots"] for one in cells}):
        mine = [one for one in cells if one["shots"] == shots]
        for name in (RANDOM, PROBE):
            gains = [
                100 * (one["entrants"][0]["test"] - row["test"])
                for one in mine
                for row in one["entrants"]
                if row["entrant"] == name
            ]
            if len(gains) > 1:
                interval = bootstrap_mean(gains)
                lines.append(
                    f"- {shots} shots: the choice over *{name}*: {interval.score:+.1f} points "
                    f"({interval.low:+.1f} to {interval.high:+.1f}, {len(gains)} cells)"
                )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--budget", default="standard")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--shots", default="16")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--split", default="test", help="that entrants are judged on; validation for choices")
    parser.add_argument("--rows", type=int, default=300, help="of that split")
    parser.add_argument("--max-input-length", type=int, default=64)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--table", action="store_true", help="write the table only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "cells.jsonl"
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not options.table:
        done = {(one["target"], one["shots"], one["sample"], one["budget"]) for one in cells}
        backbone = tpv.load_backbone(options.model, precision=options.precision)
        library = tpv.Library(str(options.library), model=backbone)
        for sample in range(options.samples):
            for shots in map(int, options.shots.split(",")):
                for target in options.targets.split(","):
                    if (target, shots, sample, options.budget) in done:
                        continue
                    task = target_of(target, options)
                    options.shots_now = shots
                    own = {name: library[name] for name in library.names if name not in FAMILY.get(target, {target})}
                    found = cell(backbone, own, task, options, sample)
                    cells.append(
                        {"target": target, "shots": shots, "sample": sample, "budget": options.budget, **found}
                    )
                    with path.open("a") as file:
                        file.write(json.dumps(cells[-1]) + "\n")
                    print(table([cells[-1]]), f"{found['race_seconds']:.0f} s", flush=True)
    (options.out / "transfer.md").write_text(table(cells) + "\n")
    print(table(cells))


if __name__ == "__main__":
    main()
