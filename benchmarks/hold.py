"""What makes vectors of a real model hold on other initializations and in sums: settings side by side, on one device.

python benchmarks/hold.py --data ../shared/data [--model smollm2] [--waves A,B,...] [--at-once 4] [--seconds 150]

A wave is a few settings that train as one bank in a process of its own; each process trains for about `--seconds`, at
most 1,000 steps. Settings are compared on validation rows under initializations that training never drew; then
`--final` trains ordinary vectors and the best portable and the best composable setting from two seeds and scores them
on test rows. `--library` trains portable vectors of twelve tasks with the best setting and saves them. Everything is
written to `--out` as it comes: hold.jsonl, hold.md, library/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

import tpv
from tpv.methods.readers import FixedSum, Inits, Mixture
from tpv.models import Backbone
from tpv.prompts.provenance import Component, VectorTraining, content_hash
from tpv.tasks import Task
from tpv.training.loop import train
from tpv.training.run import Run

TASKS = ("sst2", "ag_news", "trec", "dbpedia_14")
LIBRARY = (*TASKS, "yelp_polarity", "mnli", "qnli", "qqp", "mrpc", "yahoo_answers_topics", "snli", "scitail")
LENGTH = 60  # tokens of a text, cue included
MOST_STEPS = 1000
UNSEEN = 10_000  # seeds of the initializations that vectors are judged on
KEPT = 0.98  # of an average over steps, at each step


@dataclass(frozen=True)
class Setting:
    """How a vector of each task is trained; `kind` says under which prompts.

    Attributes:
        lr: peak learning rate.
        draws: prompts drawn a step.
        tokens: P.
        batch: rows a step.
        chance: of each other vector to be there.
        grow: share of the steps over which `chance` grows from 0.
        settle: share of the steps at whose beginning one initialization serves; then fresh ones.
        anneal: share of the steps over which the one initialization turns into fresh ones.
    """

    name: str
    kind: str = "portable"
    lr: float = 0.03
    draws: int = 16
    tokens: int = 20
    batch: int = 16
    chance: float = 0.5
    grow: float = 0.0
    settle: float = 0.0
    anneal: float = 0.0


ORDINARY = Setting("ordinary", "ordinary")
COMPOSABLE = Setting("composable", "composable")
WAVES: dict[str, tuple[Setting, ...]] = {
    "A": (ORDINARY, Setting("one draw a step", draws=1), Setting("a draw a row")),
    "B": (Setting("lr 0.06", lr=0.06), Setting("lr 0.12", lr=0.12), Setting("4 draws a step", draws=4)),
    "C": (Setting("settle 0.3", settle=0.3), Setting("anneal 0.5", anneal=0.5), Setting("lr 0.015", lr=0.015)),
    "D": (COMPOSABLE, replace(COMPOSABLE, name="c lr 0.06", lr=0.06), replace(COMPOSABLE, name="c 0.75", chance=0.75)),
    "E": (
        replace(COMPOSABLE, name="c one draw", draws=1),
        replace(COMPOSABLE, name="c 0.75 grown", chance=0.75, grow=0.5),
        replace(COMPOSABLE, name="c lr 0.06 0.75 grown", chance=0.75, grow=0.5, lr=0.06),
    ),
    "F": (
        replace(ORDINARY, name="ordinary, 40 tokens", tokens=40),
        Setting("40 tokens", tokens=40),
        replace(COMPOSABLE, name="c 40 tokens", tokens=40),
    ),
    "G": (Setting("batch 32", batch=32, draws=32), replace(COMPOSABLE, name="c batch 32", batch=32, draws=32)),
}


class Changing(Mixture):
    """A `Mixture` whose initializations or companions change in the course of training."""

    def __init__(self, setting: Setting, total: Callable[[], int], home: Tensor, *given: Any, **more: Any) -> None:
        self.setting, self.total, self.place = setting, total, home
        super().__init__(*given, **more)

    def begin(self, step: int) -> None:
        done = step / max(1, self.total())
        of = self.setting
        if of.grow:
            self.chance = of.chance * min(1.0, done / of.grow)
        super().begin(step)
        fresh = float(done >= of.settle) if of.settle else min(1.0, done / of.anneal) if of.anneal else 1.0
        if of.kind == "ordinary":
            fresh = 0.0
        if fresh < 1.0:
            self._base = self.place + fresh * (self._base - self.place)


class Trained:
    """The vectors of one setting in training: one run for each task, and their average over steps."""

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[Task],
        setting: Setting,
        recipe: tpv.Recipe,
        seed: int,
        start: Path | None = None,
    ) -> None:
        self.setting, self.backbone, self.tasks = setting, backbone, tasks
        self.total = int(recipe.steps or MOST_STEPS)
        fresh = setting.kind != "ordinary"
        shape = (setting.tokens, backbone.identity.hidden_size)
        begun = [
            tpv.TaskPromptVector.load(start / f"{task.name}.safetensors").tensor if start else torch.zeros(shape)
            for task in tasks
        ]
        self.vectors = [Parameter(tensor.clone()) for tensor in begun]
        self.average = [tensor.clone() for tensor in begun]
        inits = Inits(backbone, "vocabulary", setting.tokens, True, seed)
        self.home = tpv.SoftPrompt.sample(backbone, setting.tokens, seed)
        nothing = torch.empty(0, *shape)
        self.runs = []
        for k, task in enumerate(tasks):
            others = [other for other in self.vectors if other is not self.vectors[k]]
            reader = Changing(
                setting,
                lambda: self.total,
                self.home.tensor,
                inits,
                self.vectors[k],
                others if setting.kind == "composable" else [],
                nothing,
                scales=(1.0, 1.0),
                chance=setting.chance,
                draws=setting.draws if fresh else 1,
                seed=f"{seed} {task.name}",
            )
            judge = [(task, FixedSum(inits.fixed, [self.vectors[k]], nothing))]
            own = replace(recipe, batch_size=setting.batch)
            self.runs.append(
                Run(
                    [(task, reader)],
                    [self.vectors[k]],
                    backbone,
                    own,
                    seed,
                    validation=judge,
                    begin=reader.begin,
                    lr_factor=setting.lr / float(recipe.lr),
                )
            )

    def follow(self) -> None:
        """Average the vectors over steps."""
        for average, vector in zip(self.average, self.vectors, strict=True):
            average.lerp_(vector.detach(), 1 - KEPT)

    def prompts(self, vectors: Sequence[Tensor], together: bool, count: int) -> list[list[tpv.SoftPrompt]]:
        """For each initialization the prompt of each task: its own vector added, or the sum of all."""
        inits = [tpv.SoftPrompt.sample(self.backbone, self.setting.tokens, UNSEEN + i) for i in range(count)]
        total = torch.stack(list(vectors)).sum(0)
        return [
            [
                init.tuned_to(init.tensor + (total if together else vector.detach()), task.name, task.fingerprint)
                for vector, task in zip(vectors, self.tasks, strict=True)
            ]
            for init in inits
        ]

    def scores(self, split: str, inits: int) -> list[dict[str, Any]]:
        """Exact match and accuracy of each task: at home, on unseen initializations, in the sum of all there."""
        ways: list[tuple[str, list[list[tpv.SoftPrompt]]]] = []
        if self.setting.kind == "ordinary":
            at_home = [
                self.home.tuned_to(self.home.tensor + vector.detach(), task.name, task.fingerprint)
                for vector, task in zip(self.vectors, self.tasks, strict=True)
            ]
            ways.append(("home", [at_home]))
        ways.append(("moved", self.prompts(self.vectors, False, inits)))
        if self.setting.kind != "ordinary":
            ways.append(("moved, averaged", self.prompts(self.average, False, inits)))
        if self.setting.kind == "composable":
            ways.append(("sum", self.prompts(self.vectors, True, inits)))
        rows = []
        for way, sets in ways:
            flat = [prompt for prompts in sets for prompt in prompts]
            tasks = [task for _ in sets for task in self.tasks]
            found = tpv.evaluate(self.backbone, tasks, flat, split, max_input_length=LENGTH)
            for k, task in enumerate(self.tasks):
                mine = [found[i * len(self.tasks) + k] for i in range(len(sets))]
                rows.append(
                    {
                        "setting": self.setting.name,
                        "kind": self.setting.kind,
                        "way": way,
                        "task": task.name,
                        "split": split,
                        "inits": len(sets),
                        "exact_match": 100 * statistics.mean(one.exact_match for one in mine),
                        "accuracy": 100 * statistics.mean(one.accuracy for one in mine),
                        "norm": float(self.vectors[k].detach().norm()),
                    }
                )
        return rows


def tasks_of(names: Iterable[str], data: Path, rows: int) -> list[Task]:
    """Tasks with so many validation and test rows."""
    limits = {"validation": rows, "test": rows}
    return [tpv.load_task(name, data_dir=data).limited(limits, 0) for name in names]


def run_bank(
    backbone: Backbone,
    tasks: Sequence[Task],
    settings: Sequence[Setting],
    seed: int,
    seconds: float,
    most: int,
    start: Path | None = None,
) -> tuple[list[Trained], dict[str, float]]:
    """Train settings as one bank, for about so many seconds: the number of steps follows from the first twenty."""
    recipe = tpv.Recipe(
        steps=most, batch_size=16, lr=0.03, warmup_steps=most // 20, select="last", max_input_length=LENGTH
    )
    trained = [Trained(backbone, tasks, setting, recipe, seed, start) for setting in settings]
    runs = [run for one in trained for run in one.runs]
    begun = time.perf_counter()
    ends: list[float] = []

    def after(progress: tpv.Progress) -> None:
        for one in trained:
            one.follow()
        ends.append(time.perf_counter())
        if progress.step == 20 and most > 60:  # graphs are made by then
            step = statistics.median(b - a for a, b in itertools.pairwise(ends[8:]))
            steps = max(60, min(most, int((seconds - (ends[-1] - begun)) / step) + 20))
            for one in trained:
                one.total = steps
                for run in one.runs:
                    run.total = steps

    train(backbone, runs, recipe, callback=after)
    spent = ends[-1] - begun
    rows = sum(setting.batch for setting in settings) * len(tasks)
    return trained, {"seconds": spent, "steps": len(ends), "rows_a_second": rows * len(ends) / spent}


def wave(options: argparse.Namespace) -> None:
    """One process: train, score, and print a line of JSON for every score."""
    backbone = tpv.load_backbone(options.model, precision=options.precision, device=options.device)
    settings = [Setting(**one) for one in json.loads(options.settings)]
    tasks = tasks_of(options.tasks.split(","), options.data, options.rows)
    given = (options.seed, options.seconds, options.most_steps, options.start)
    trained, cost = run_bank(backbone, tasks, settings, *given)
    for one in trained:
        for row in one.scores(options.split, options.inits):
            print(json.dumps({**row, **cost, "seed": options.seed, "wave": options.wave}), flush=True)
    if options.save:
        for one in trained:
            for task, vector in zip(one.tasks, one.vectors, strict=True):
                saved = vector_of(backbone, one.setting, task, vector.detach(), options.seed)
                saved.save(options.save / f"{task.name}.safetensors")


def vector_of(backbone: Backbone, setting: Setting, task: Task, tensor: Tensor, seed: int) -> tpv.TaskPromptVector:
    """A portable vector as `tpv.fit_vectors` gives it."""
    training = VectorTraining(starts="vocabulary", parameters=None, scales=(1.0, 1.0), seed=seed, pool=())
    origin = content_hash(tensor.contiguous(), {"task": task.name, "training": training.model_dump(mode="json")})
    part = Component(
        task=task.name, data=task.fingerprint, origin=origin, init=None, coefficient=1.0, training=training
    )
    return tpv.TaskPromptVector(tensor, backbone.identity, (part,))


class Processes:
    """Waves in processes of their own, a few at once; what they print is kept as it comes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.rows = options, []

    def __call__(self, jobs: Sequence[tuple[str, Sequence[Setting], dict[str, Any]]]) -> list[dict[str, Any]]:
        waiting, running = list(jobs), []
        before = len(self.rows)
        while waiting or running:
            while waiting and len(running) < self.options.at_once:
                running.append(self._start(*waiting.pop(0)))
            for child, log in list(running):
                if child.poll() is not None:
                    running.remove((child, log))
                    self._collect(log)
                    if child.returncode:
                        print(log.with_suffix(".err").read_text()[-1500:], file=sys.stderr, flush=True)
            time.sleep(0.2)
        return self.rows[before:]

    def _start(self, name: str, settings: Sequence[Setting], more: dict[str, Any]) -> tuple[Any, Path]:
        of = self.options
        options = {
            "tasks": ",".join(TASKS),
            "split": "validation",
            "inits": 3,
            "seed": 0,
            "seconds": of.seconds,
            **more,
        }
        words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        common = ("data", "model", "precision", "device", "rows", "most_steps")
        words += [f"--{key.replace('_', '-')}={getattr(of, key)}" for key in common if getattr(of, key) is not None]
        log = of.out / "logs" / f"{name}.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            __file__,
            "--wave",
            name,
            "--settings",
            json.dumps([asdict(one) for one in settings]),
        ]
        with log.open("w") as said, log.with_suffix(".err").open("w") as err:
            return subprocess.Popen([*command, *words], stdout=said, stderr=err), log

    def _collect(self, log: Path) -> None:
        rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        self.rows += rows
        with (self.options.out / "hold.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(table(rows), flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Exact match of each setting and way, a column for each task, and what it took; a table for each set of tasks."""
    cells: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["wave"], row["setting"], row["way"]), {})[row["task"]] = row
    tables: dict[tuple[str, ...], list[str]] = {}
    for (_, setting, way), found in cells.items():
        (split, seed, steps, seconds), *_ = [
            (row["split"], row["seed"], row["steps"], row["seconds"]) for row in found.values()
        ]
        scores = [row["exact_match"] for row in found.values()]
        accuracy = statistics.mean(row["accuracy"] for row in found.values())
        shown = " | ".join(f"{score:.1f}" for score in (*scores, statistics.mean(scores), accuracy))
        line = f"| {setting} | {way} | {split} | {seed} | {shown} | {steps} | {seconds:.0f} |"
        tables.setdefault(tuple(found), []).append(line)
    parts = []
    for names, lines in tables.items():
        head = f"| setting | vectors | rows | seed | {' | '.join(names)} | mean | accuracy | steps | seconds |"
        parts.append("\n".join([head, "|---" * (8 + len(names)) + "|", *lines]))
    return "\n\n".join(parts)


def best(rows: Sequence[dict[str, Any]], kind: str, way: str) -> str:
    """The setting of a kind with the highest mean exact match on validation rows."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == kind and row["way"] == way and row["split"] == "validation":
            found.setdefault(row["setting"], []).append(row["exact_match"])
    return max(found, key=lambda name: statistics.mean(found[name]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, default=Path("runs/hold"))
    parser.add_argument("--waves", default=",".join(WAVES))
    parser.add_argument("--at-once", type=int, default=4, help="processes on the device together")
    parser.add_argument("--seconds", type=float, default=150.0, help="of training, a wave")
    parser.add_argument("--final-seconds", type=float, default=150.0, help="of training, each of the last processes")
    parser.add_argument("--most-steps", type=int, default=MOST_STEPS)
    parser.add_argument("--rows", type=int, default=500, help="validation rows, and test rows, of each task")
    parser.add_argument("--final", action="store_true", help="train the best settings from two seeds, score test rows")
    parser.add_argument("--library", action="store_true", help="train and save portable vectors of twelve tasks")
    one = parser.add_argument_group("of one process, given by this script itself")
    one.add_argument("--wave")
    one.add_argument("--settings")
    one.add_argument("--tasks", default=",".join(TASKS))
    one.add_argument("--split", default="validation")
    one.add_argument("--inits", type=int, default=3)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--save", type=Path)
    one.add_argument("--start", type=Path, help="folder of vectors to begin from")
    options = parser.parse_args()
    if options.wave:
        wave(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    processes = Processes(options)
    wanted = [name for name in options.waves.split(",") if name]
    rows = processes([(name, WAVES[name], {}) for name in wanted])
    known = {setting.name: setting for settings in WAVES.values() for setting in settings}
    jobs: list[tuple[str, Sequence[Setting], dict[str, Any]]] = []
    if options.final:
        chosen = (ORDINARY, known[best(rows, "portable", "moved")], known[best(rows, "composable", "sum")])
        print("chosen on validation rows:", [one.name for one in chosen], flush=True)
        groups: dict[int, list[Setting]] = {}
        for setting in chosen:  # prompts of a bank have one length
            groups.setdefault(setting.tokens, []).append(setting)
        for seed in (0, 1):
            for tokens, settings in groups.items():
                more = {"split": "test", "inits": 5, "seed": seed, "seconds": options.final_seconds}
                jobs.append((f"final-{tokens}-{seed}", settings, more))
    if options.library:
        setting = known[best(rows, "portable", "moved")]
        more = {"tasks": ",".join(LIBRARY), "split": "test", "save": options.out / "library"}
        more["seconds"] = options.final_seconds
        jobs.append(("library", [setting], more))
    processes(jobs)
    (options.out / "hold.md").write_text(table(processes.rows) + "\n")


if __name__ == "__main__":
    main()
