"""Do vectors and prompts of one model work on another? Ported, then tuned a little, against training from scratch.

python benchmarks/port.py --target tools/models/seed8 [--source mini] [--seeds 0,1,2] [--parts port,terms]
python benchmarks/port.py --parts drift [--source mini]
python benchmarks/port.py --parts real_drift --data DIR
python benchmarks/port.py --parts spaces --target tools/models/seed8
python benchmarks/port.py --tables

Each line of port.jsonl is a score; what is there is not run again. `--tables` prints the tables of
docs/across_models.md from it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

import tpv
from tpv.models import Backbone
from tpv.models.loading import load_backbone
from tpv.models.quantized import QUANTIZATIONS
from tpv.porting.anchors import Anchors, anchors_of
from tpv.tasks import Task

SOURCES = ("mnli", "qnli", "dbpedia", "trec", "sst2", "yelp")
MAPS = ("sparse", "procrustes", "ridge", "relative", "copy")
KINDS = ("prompt", "ordinary", "portable", "composable")  # `prompt`: init and vector are ported together
TOKENS, SHOTS = 20, 100
REAL, VECTORS = ("sst2", "ag_news", "trec"), Path(__file__).parent / "smollm2_vectors"
NOISES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


class Lines:
    """Scores by what they are of, a line of a file each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.scores = {json.dumps(row["about"]): row["score"] for row in rows}

    def lacks(self, about: dict[str, Any]) -> bool:
        return json.dumps(about) not in self.scores

    def add(self, about: dict[str, Any], score: float) -> None:
        self.scores[json.dumps(about)] = score
        with self.path.open("a") as file:
            file.write(json.dumps({"about": about, "score": score}) + "\n")


def quiet(_: object) -> None:
    """No bar."""


def few(steps: int, seed: int, rows: int = 16) -> tpv.Recipe:
    """So many steps, the last one kept."""
    return tpv.Recipe(steps=steps, batch_size=rows, warmup_steps=steps // 10, select="last", seed=seed)


def task_of(name: str) -> Task:
    return tpv.load_task(f"mini/{name}")


def trained(backbone: Backbone, folder: Path, kind: str, seed: int) -> list[Any]:
    """The vectors of the six sources, or the tuned prompts; trained once and kept.

    As configs/portable.toml does: 150 steps of 16 rows for ordinary ones, 500 for the others.
    """
    paths = [folder / f"{kind}-{seed}" / f"{name}.safetensors" for name in SOURCES]
    if not all(path.exists() for path in paths):
        tasks = [task_of(name) for name in SOURCES]
        if kind in ("prompt", "ordinary"):
            init = tpv.SoftPrompt.sample(backbone, TOKENS, seed=seed)
            found: Sequence[Any] = tpv.fit(backbone, tasks, [init] * len(tasks), few(150, seed), callback=quiet)
            found = found if kind == "prompt" else [prompt - init for prompt in found]
        else:
            recipe = tpv.Recipe(steps=500, batch_size=16, warmup_steps=50, select="last", seed=seed)
            if kind == "portable":
                recipe = tpv.Recipe(steps=500, batch_size=16, warmup_steps=50, select="last", seed=seed, lr=1.0)
            found = tpv.fit_vectors(
                backbone, tasks, recipe, composable=kind == "composable", num_tokens=TOKENS, seed=seed, callback=quiet
            )
        for item, path in zip(found, paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            item.save(path)
    cls = tpv.SoftPrompt if kind == "prompt" else tpv.TaskPromptVector
    return [cls.load(path) for path in paths]


def scored(backbone: Backbone, prompts: Sequence[tpv.SoftPrompt], split: str) -> list[float]:
    """Exact match of each of six prompts on its task."""
    tasks = [task_of(name) for name in SOURCES]
    return [score.exact_match for score in tpv.evaluate(backbone, tasks, list(prompts), split=split)]


def record(
    lines: Lines, about: dict[str, Any], make: Callable[[], Sequence[tpv.SoftPrompt]], on: Backbone, split: str = "test"
) -> None:
    """Score six prompts and add them, if they are not there."""
    if lines.lacks(about | {"task": SOURCES[-1]}):
        for name, score in zip(SOURCES, scored(on, make(), split), strict=True):
            lines.add(about | {"task": name}, score)
        print(json.dumps(about), flush=True)


def tuned(target: Backbone, starts: Sequence[tpv.SoftPrompt], steps: int, seed: int) -> Sequence[tpv.SoftPrompt]:
    """Starts after some steps on 100 rows of each task."""
    if steps == 0:
        return starts
    tasks = [task_of(name).few_shot(SHOTS, seed) for name in SOURCES]
    return tpv.fit(target, tasks, list(starts), few(steps, seed), callback=quiet)


def ported(source: Backbone, target: Backbone, items: Sequence[Any], seed: int, **how: Any) -> list[tpv.SoftPrompt]:
    """Items as prompts of the target; vectors are added to a random initialization."""
    moved = tpv.port(items, source, target, **how)
    base = tpv.SoftPrompt.sample(target, TOKENS, seed=100 + seed)
    return [item if isinstance(item, tpv.SoftPrompt) else base + item for item in moved]


def port_part(source: Backbone, target: Backbone, name: str, lines: Lines, options: argparse.Namespace) -> None:
    """0, 10, 50 and 200 steps from ported starts, from copies and from random initializations."""
    for seed in map(int, options.seeds.split(",")):
        random = [tpv.SoftPrompt.sample(target, TOKENS, seed=100 + seed)] * len(SOURCES)
        for steps in options.steps:
            about = {"part": "port", "target": name, "kind": "random", "map": "", "steps": steps, "seed": seed}
            record(
                lines, about, lambda steps=steps, seed=seed, random=random: tuned(target, random, steps, seed), target
            )
        for steps, kind, method in itertools.product(options.steps, options.kinds.split(","), options.maps.split(",")):
            about = {"part": "port", "target": name, "kind": kind, "map": method, "steps": steps, "seed": seed}

            def make(steps: int = steps, kind: str = kind, method: str = method, seed: int = seed) -> Any:
                items = trained(source, options.out / "vectors", kind, seed if kind in KINDS[:2] else 0)
                return tuned(target, ported(source, target, items, seed, method=method), steps, seed)

            record(lines, about, make, target)


def spaces(source: Backbone, target: Backbone) -> None:
    """What linear maps make of shared tokens that they were not fitted on: a fifth of them, left out at random."""
    anchors = anchors_of(source, target, None)
    order = torch.randperm(len(anchors), generator=torch.Generator().manual_seed(0))
    fitted, left = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    for method in ("procrustes", "ridge", "relative"):
        part = Anchors(anchors.source[fitted], anchors.target[fitted])
        found = tpv.register.port[method].thing(part)
        mapped, own = found.prompt(anchors.source[left]) - found.offset, anchors.target - found.offset
        likeness = normalize(mapped, dim=1) @ normalize(own, dim=1).T
        right = likeness[torch.arange(len(left)), left]
        print(
            f"{method}: {len(left)} tokens left out of {len(anchors)}, mean cosine to their own embedding "
            f"{float(right.mean()):.2f}, nearest to it {float((likeness.argmax(1) == left).float().mean()):.2f}"
        )


def terms_part(source: Backbone, target: Backbone, name: str, lines: Lines, options: argparse.Namespace) -> None:
    """Tokens of a row in the map `sparse`, without any steps; on validation rows, for the default is chosen by them."""
    for kind, terms in itertools.product(("prompt", "portable"), (1, 2, 4, 8, 16, 64)):
        about = {"part": "terms", "target": name, "kind": kind, "map": f"sparse, {terms}", "steps": 0, "seed": 0}

        def make(kind: str = kind, terms: int = terms) -> Any:
            items = trained(source, options.out / "vectors", kind, 0)
            return ported(source, target, items, 0, method="sparse", terms=terms)

        record(lines, about, make, target, "validation")


def unlabelled_part(source: Backbone, target: Backbone, name: str, lines: Lines, options: argparse.Namespace) -> None:
    """Steps on 100 rows without labels, on what the source says under the old prompt."""
    for seed, steps in itertools.product(map(int, options.seeds.split(",")), (10, 50)):
        for kind, method in (("prompt", "sparse"), ("prompt", "copy"), ("portable", "sparse")):
            about = {"part": "unlabelled", "target": name, "kind": kind, "map": method, "steps": steps, "seed": seed}

            def make(kind: str = kind, method: str = method, seed: int = seed, steps: int = steps) -> Any:
                items = trained(source, options.out / "vectors", kind, seed if kind in KINDS[:2] else 0)
                tasks = [task_of(one).few_shot(SHOTS, seed) for one in SOURCES]
                start = tpv.SoftPrompt.sample(target, TOKENS, seed=100 + seed)
                how = {"method": method, "data": tasks, "teacher": "source", "recipe": few(steps, seed)}
                moved = tpv.port(items, source, target, start=start, callback=quiet, **how)
                return moved if kind == "prompt" else [start + vector for vector in moved]

            record(lines, about, make, target)


def projector_part(source: Backbone, target: Backbone, name: str, lines: Lines, options: argparse.Namespace) -> None:
    """A projector trained on five tasks, for the sixth: by distance and by the tasks themselves."""
    for seed in map(int, options.seeds.split(",")):
        about = {"part": "port", "target": name, "kind": "tuned on all rows", "map": "", "steps": 150, "seed": seed}
        record(lines, about, partial(trained, target, options.out / f"vectors-{name}", "prompt", seed), target)
    for seed, way in itertools.product(map(int, options.seeds.split(",")), ("distance", "tasks")):

        def project(seed: int = seed, way: str = way) -> list[tpv.SoftPrompt]:
            ours = trained(source, options.out / "vectors", "prompt", seed)
            theirs = trained(target, options.out / f"vectors-{name}", "prompt", seed) if way == "distance" else []
            tasks = [task_of(one) for one in SOURCES]
            found = []
            for left in range(len(SOURCES)):
                rest = [k for k in range(len(SOURCES)) if k != left]
                known = [(ours[k], theirs[k] if way == "distance" else tasks[k]) for k in rest]
                found.append(tpv.port(ours[left], source, target, method="projector", known=known, seed=seed))
            return found

        starts: list[tpv.SoftPrompt] = []
        for steps in (0, 10, 50):
            about = {"part": "port", "target": name, "kind": "prompt", "map": f"projector, {way}"}
            about |= {"steps": steps, "seed": seed}
            if lines.lacks(about | {"task": SOURCES[-1]}):
                starts = starts or project()
                record(lines, about, lambda steps=steps, seed=seed, s=starts: tuned(target, s, steps, seed), target)


def noisy(name: str, size: float, seed: int) -> Backbone:
    """A model with Gaussian noise in all its weights: `size` times the root mean square of each."""
    backbone: Any = load_backbone(name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in backbone.model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight += size * weight.square().mean().sqrt() * noise
    return type(backbone)(backbone.model, backbone.tokenizer, f"{name} with noise {size:g}")


def drift_part(source: Backbone, name: str, lines: Lines, options: argparse.Namespace) -> None:
    """Vectors on the same model with noise of growing size in its weights."""
    for seed, size in itertools.product(map(int, options.seeds.split(",")), NOISES):
        target = noisy(name, size, seed)
        base = {"part": "drift", "target": name, "noise": size, "seed": seed}
        random = [tpv.SoftPrompt.sample(target, TOKENS, seed=100 + seed)] * len(SOURCES)
        record(
            lines,
            base | {"kind": "random", "map": "", "steps": 50},
            lambda s=seed, t=target, r=random: tuned(t, r, 50, s),
            target,
        )
        for kind, method, steps in [
            *((kind, "copy", 0) for kind in KINDS),
            ("prompt", "sparse", 0),
            ("prompt", "procrustes", 0),
            ("prompt", "copy", 10),
        ]:

            def make(kind: str = kind, method: str = method, steps: int = steps, s: int = seed, t: Any = target) -> Any:
                items = trained(source, options.out / "vectors", kind, s if kind in KINDS[:2] else 0)
                return tuned(t, ported(source, t, items, s, method=method), steps, s)

            record(lines, base | {"kind": kind, "map": method, "steps": steps}, make, target)


def real_drift_part(lines: Lines, options: argparse.Namespace) -> None:
    """The portable vectors of SmolLM2 on itself with noise in its weights, or in fewer bits; accuracy on a few rows."""
    for size in (*NOISES, *QUANTIZATIONS):
        source = target = None
        for name in REAL:
            about = {"part": "drift", "target": "smollm2", "noise": size, "seed": 0, "kind": "portable", "map": "copy"}
            about |= {"steps": 0, "task": name}
            if lines.lacks(about):
                source = source or tpv.load_backbone("smollm2")
                target = target or twin("smollm2", size)
                task = tpv.load_task(name, data_dir=options.data).limited({"test": options.rows}, 0)
                vector = tpv.TaskPromptVector.load(VECTORS / f"{name}.safetensors")
                prompt = tpv.SoftPrompt.sample(target, vector.num_tokens, seed=100)
                prompt += tpv.port(vector, source, target, method="copy")
                lines.add(about, tpv.evaluate(target, task, prompt, "test", max_input_length=64).accuracy)
                print(json.dumps(about), flush=True)


def twin(name: str, how: float | str) -> Backbone:
    """A model with noise of this size in its weights, or with its layers in 4 or 8 bits."""
    return tpv.load_backbone(name, quantization=how) if isinstance(how, str) else noisy(name, how, 0)


def tables(lines: Lines) -> None:
    """Means over seeds, a table for each part and target."""
    rows = [(json.loads(about), score) for about, score in lines.scores.items()]
    for part, target in sorted({(about["part"], about["target"]) for about, _ in rows}):
        mine = [(about, score) for about, score in rows if (about["part"], about["target"]) == (part, target)]
        names = list(dict.fromkeys(about["task"] for about, _ in mine))
        print(f"\n### {part}, {target}\n")
        print(f"| {'noise | ' * (part == 'drift')}start | map | steps | {' | '.join(names)} | mean | seeds |")
        print(f"|{'--:|' * (part == 'drift')}---|---|--:|{'--:|' * (len(names) + 2)}")
        keys: dict[tuple[Any, ...], dict[str, list[float]]] = {}
        for about, score in mine:
            key = (about.get("noise", ""), about["kind"], about["map"], about["steps"])
            keys.setdefault(key, {}).setdefault(about["task"], []).append(100 * score)
        for (noise, *key), found in sorted(keys.items(), key=lambda item: (*map(str, item[0][:3]), item[0][3])):
            if len(found) < len(names):  # half measured
                continue
            means = [statistics.mean(found[name]) for name in names]
            cells = [*([f"{noise}"] if noise != "" else []), *map(str, key), *(f"{mean:.0f}" for mean in means)]
            print(f"| {' | '.join(cells)} | {statistics.mean(means):.1f} | {len(found[names[0]])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="mini")
    parser.add_argument("--target", help="a folder; its name is what results call it")
    parser.add_argument("--parts", default="port,terms,unlabelled,projector")
    parser.add_argument("--maps", default=",".join(MAPS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--steps", type=lambda text: [int(one) for one in text.split(",")], default=[0, 2, 5, 10, 50, 200]
    )
    parser.add_argument("--data", type=Path, help="folder of hub data, for real_drift")
    parser.add_argument("--rows", type=int, default=100, help="test rows of each task, for real_drift")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/port"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    lines = Lines(options.out / "port.jsonl")
    if options.tables:
        tables(lines)
        return
    source = tpv.load_backbone(options.source)
    parts = {"port": port_part, "terms": terms_part, "unlabelled": unlabelled_part, "projector": projector_part}
    for part in options.parts.split(","):
        if part == "vectors":
            for kind in KINDS:
                trained(source, options.out / "vectors", kind, 0)
        elif part == "spaces":
            spaces(source, tpv.load_backbone(options.target))
        elif part == "real_drift":
            real_drift_part(lines, options)
        elif part == "drift":
            drift_part(source, options.source, lines, options)
        else:
            parts[part](source, tpv.load_backbone(options.target), Path(options.target).name, lines, options)


if __name__ == "__main__":
    main()
