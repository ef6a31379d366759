"""tpv beside PEFT and the trainers of transformers, on this machine: ratios, from one process, interleaved.

python benchmarks/bench.py [--data ../shared/data] [--out runs/bench] [--rows 1,2,...] [--rounds 3]

Prints a Markdown table and writes it with all single measurements (table.md, bench.json). Every ratio is the median
over rounds; in each round the peers and tpv do the same work one after the other. Weights are random, shapes and texts
are real (or, without local copies of the data, texts are made up with the data's lengths).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import Peer
from workloads import LABELS, Model, Texts, mini, smollm2, t5_small, texts

import tpv
from tpv.evaluation import search
from tpv.evaluation.encode import encode_examples
from tpv.evaluation.search import GRID, search_scale
from tpv.models import Backbone
from tpv.models.protocol import Tokens
from tpv.outputs.label import label_tokens
from tpv.tasks import Task

P, SEED = 50, 0
MAX_LENGTH = 256


@dataclass
class Result:
    """One line of the table. Rates are in `unit` a second, one a round; of memory, bytes."""

    number: int
    work: str
    unit: str
    tpv: list[float] = field(default_factory=list)
    authors: list[float] = field(default_factory=list)
    tuned: list[float] = field(default_factory=list)
    targets: tuple[float | None, float | None] = (None, None)
    note: str = ""

    def ratio(self, peer: list[float]) -> float | None:
        """Median over rounds of ours over theirs."""
        return statistics.median(a / b for a, b in zip(self.tpv, peer, strict=True)) if peer else None


def _silent(_: object) -> None:
    """No bar."""


def _columns(task: Task, split: str) -> tuple[list[str], list[str]]:
    rows = task.examples(split)
    return [row.source for row in rows], [row.target for row in rows]


def train_rate(
    backbone: Backbone, task: Task, prompts: list[tpv.SoftPrompt], batch: int, steps: int, lr: float
) -> float:
    """Examples a second of tpv, the first step left out."""
    ends: list[float] = []
    recipe = tpv.Recipe(steps=steps, batch_size=batch, lr=lr, select="last")
    tpv.fit(backbone, task, prompts, recipe, callback=lambda _: ends.append(time.perf_counter()))
    return batch * len(prompts) * (len(ends) - 1) / (ends[-1] - ends[0])


def training(result: Result, model: Model, task: Task, batch: int, steps: int, rounds: int, authors: int) -> Result:
    """Rows 1 and 2: examples a second; the authors' way over `authors` steps, or not at all."""
    sources, targets = _columns(task, "train")
    start = tpv.SoftPrompt.sample(model.backbone, P, SEED)
    for _ in range(rounds):
        result.tpv.append(train_rate(model.backbone, task, [start], batch, steps, 0.01))
        for style, count, rates in (("tuned", steps, result.tuned), ("authors", authors, result.authors)):
            if count:
                peer = Peer(model.stock, model.backbone.tokenizer, P, style)
                rates.append(batch / peer.train(sources, targets, batch, count, lr=0.01))
                peer.close()
    return result


def scoring(result: Result, model: Model, task: Task, batch: int, rounds: int, authors: int) -> Result:
    """Rows 3 and 4: examples a second; the authors' way on the first `authors` rows only."""
    sources, targets = _columns(task, "test")
    prompt = tpv.SoftPrompt.sample(model.backbone, P, SEED)
    for _ in range(rounds):
        begun = time.perf_counter()
        tpv.evaluate(model.backbone, task, prompt, "test", max_input_length=MAX_LENGTH)
        result.tpv.append(len(sources) / (time.perf_counter() - begun))
        for style, count, rates in (("tuned", len(sources), result.tuned), ("authors", authors, result.authors)):
            if count:
                peer = Peer(model.stock, model.backbone.tokenizer, P, style)
                peer.set_prompt(prompt.tensor)
                rates.append(count / peer.score(sources[:count], targets[:count], task.labels, batch))
                peer.close()
    return result


def fleet(result: Result, rounds: int, steps: int) -> Result:
    """Row 5: 10 starts x 3 methods as one bank of 30, batches of 2, against one training after the other.

    The peer's time is that of one training; 30 take 30 times as long.
    """
    model = mini()
    backbone = model.backbone
    task = tpv.load_task("mini/sst2").few_shot(100, 0)
    starts = [tpv.SoftPrompt.sample(backbone, 20, seed) for seed in range(30)]
    sources, targets = _columns(task, "train")
    for _ in range(rounds):
        result.tpv.append(train_rate(backbone, task, starts, 2, steps, 0.1))
        peer = Peer(model.stock, model.backbone.tokenizer, 20, "tuned")
        result.tuned.append(2 / peer.train(sources, targets, 2, steps, lr=0.1))
        peer.close()
    return result


def lambdas(result: Result, rounds: int, draws: int) -> Result:
    """Row 6: searches an hour for the scale of a sum of two vectors, 21 values, two validation sets of 1,000.

    A peer scores every value with generation; two values are timed and stand for all. Whether the race chooses as the
    whole grid does is tried on `draws` validation sets.
    """
    model = mini()
    backbone = model.backbone
    start = tpv.SoftPrompt.sample(backbone, 20, SEED)
    recipe = tpv.Recipe(steps=100, batch_size=16, select="last")
    names = ["mini/sst2", "mini/trec"]
    trained = [tpv.load_task(name) for name in names]
    vector = sum(tuned - start for tuned in tpv.fit(backbone, trained, [start] * 2, recipe, callback=_silent))
    pool = [
        tuple(
            replace(row, id=f"{split} {row.id}")
            for split in ("validation", "test", "train")
            for row in task.examples(split)
        )[:3000]
        for task in trained
    ]

    def draw(seed: int) -> list[Task]:
        order = torch.Generator().manual_seed(seed)
        return [
            Task(task.spec, {"validation": tuple(rows[i] for i in torch.randperm(len(rows), generator=order)[:1000])})
            for task, rows in zip(trained, pool, strict=True)
        ]

    for number in range(rounds):
        tasks = draw(number)
        begun = time.perf_counter()
        search_scale(backbone, start, vector, tasks)
        result.tpv.append(3600 / (time.perf_counter() - begun))
        for style, share, rates in (("tuned", 1, result.tuned), ("authors", 10, result.authors)):
            peer = Peer(model.stock, model.backbone.tokenizer, 20, style)
            seconds = 0.0
            for scale in (0.3, 0.7):
                peer.set_prompt(vector.apply(start, scale).tensor)  # type: ignore[union-attr]
                for task in tasks:
                    sources, targets = _columns(task, "validation")
                    count = len(sources) // share
                    seconds += share * peer.score(sources[:count], targets[:count], task.labels, 64)
            peer.close()
            rates.append(3600 / (seconds / 2 * len(GRID)))
    result.note = _same_choice(model, start, vector, [draw(1000 + number) for number in range(draws)])
    return result


def _same_choice(model: Model, start: tpv.SoftPrompt, vector: tpv.TaskPromptVector, draws: list[list[Task]]) -> str:
    """In how many draws the race chooses as the whole grid does; what prompts say is calculated once a row."""
    prompts = [vector.apply(start, scale) for scale in GRID]
    number = {prompt.tensor.numpy().tobytes(): i for i, prompt in enumerate(prompts)}
    real = search.greedy_labels
    said: dict[Tokens, NDArray[np.int64]] = {}
    for tasks in zip(*draws, strict=True):
        rows = {row.id: row for task in tasks for row in task.examples("validation")}
        sources = encode_examples(model.backbone, list(rows.values()), MAX_LENGTH)
        found = real(model.backbone, prompts, sources, label_tokens(model.backbone, tasks[0]))
        said |= dict(zip(sources, found.T, strict=True))

    def known(_: Backbone, asked: Sequence[tpv.SoftPrompt], sources: Sequence[Tokens], __: object) -> NDArray[np.int64]:
        places = [number[prompt.tensor.numpy().tobytes()] for prompt in asked]
        return np.array([said[source][places] for source in sources]).T

    search.greedy_labels = known
    try:
        same = sum(
            len({search_scale(model.backbone, start, vector, tasks, race=race).scale for race in (True, False)}) == 1
            for tasks in draws
        )
    finally:
        search.greedy_labels = real
    return f"the race chose as the whole grid in {same} of {len(draws)} draws"


CHILD = """
import resource, sys
import tpv
backbone = tpv.load_backbone("mini")
task = tpv.load_task("mini/sst2").few_shot(200, 0)
count, rows = map(int, sys.argv[1:])
starts = [tpv.SoftPrompt.sample(backbone, 100, seed) for seed in range(count)]
recipe = tpv.Recipe(steps=10, batch_size=rows // count, lr=0.1, select="last")
tpv.fit(backbone, task, starts, recipe, callback=lambda _: None)
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(result: Result, rounds: int) -> Result:
    """Row 7: peak resident memory of training 30 prompts over that of one, 60 rows a step, each in its own process."""
    for _ in range(rounds):
        for count, found in ((30, result.tpv), (1, result.tuned)):
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(count), "60"], capture_output=True, text=True, check=True
            )
            found.append(float(done.stdout))
    return result


def matmul_rate() -> float:
    """Floating-point operations a second of a large fp32 matrix product."""
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    left @ right
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - begun)
    return 2 * 2048**3 / statistics.median(times)


def t5_operations(backbone: Any, task: Task, batch: int, steps: int) -> float:
    """Floating-point operations of so many steps: products with frozen weights forward, and back for activations.

    Rows in the order of training, no padding counted; attention's own products included.
    """
    from tpv.training.sampler import batches

    config = backbone.model.config
    width, inner, wide = config.d_model, config.num_heads * config.d_kv, config.d_ff
    block, ff = 4 * width * inner, 2 * width * wide
    labels = label_tokens(backbone, task)
    rows = task.examples("train")
    lengths = [len(source) for source in encode_examples(backbone, rows, MAX_LENGTH)]
    total = 0.0
    order = batches(lengths, batch, 0)
    for _ in range(steps):
        for i in next(order):
            read, said = P + lengths[i], len(labels[rows[i].label])
            encoder = config.num_layers * (read * (block + ff) + 2 * read * read * inner)
            # keys and values of what the encoder made are not needed, see `tpv.models.attention`
            cross = said * (block + 2 * config.num_heads * read * width)
            decoder = config.num_decoder_layers * (said * (block + ff) + 2 * said * said * inner + cross)
            total += 2 * (encoder + decoder + said * width * config.vocab_size)
    return 2 * total  # the backward pass for activations costs as much as the forward pass


def utilisation(result: Result, model: Model, task: Task, batch: int, steps: int, rounds: int) -> Result:
    """Row 8: share of this machine's rate of matrix products that row 1's training reaches."""
    backbone = model.backbone
    start = tpv.SoftPrompt.sample(backbone, P, SEED)
    needed = t5_operations(backbone, task, batch, steps) / steps
    for _ in range(rounds):
        rate = train_rate(backbone, task, [start], batch, steps, 0.01)
        result.tpv.append(needed * rate / batch)
        result.tuned.append(matmul_rate())
    return result


def machine() -> str:
    """What this ran on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    return f"{name}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def table(results: list[Result]) -> str:
    """The results as Markdown."""
    lines = [
        "| | work | tpv | v. the authors' way | target | v. PEFT tuned well | target | |",
        "|--:|---|--:|--:|--:|--:|--:|---|",
    ]
    for of in results:
        median = statistics.median(of.tpv)
        own = f"{median:,.3g} {of.unit}" if of.unit else "–"
        cells = []
        for peer, target in zip((of.authors, of.tuned), of.targets, strict=True):
            ratio = of.ratio(peer)
            cells += [f"{ratio:.2f} ×" if ratio is not None else "–", f"{target:g} ×" if target else "–"]
        lines.append(f"| {of.number} | {of.work} | {own} | {' | '.join(cells)} | {of.note} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="local copies of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--rows", default="1,2,3,4,5,6,7,8", help="which rows of the table")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    wanted = {int(row) for row in options.rows.split(",")}
    rounds, data = options.rounds, options.data if options.data.is_dir() else None
    sst2, mnli = (texts(name, 3000, data) for name in ("sst2", "mnli"))
    results: list[Result] = []

    def corpus(*of: Texts) -> tuple[str, ...]:
        labels = tuple(f"{label}\nlabel: {label}" for one in of for label in LABELS[one.name]) * 1000
        return (
            tuple(text for one in of for text, _ in one.rows) + labels
        )  # label words are one piece, as they are in T5's

    def add(result: Result, work: Callable[..., Result], *arguments: Any) -> None:
        if result.number in wanted:
            begun = time.perf_counter()
            results.append(work(result, *arguments))
            print(table(results[-1:]).splitlines()[-1], f"[{time.perf_counter() - begun:.0f} s]", flush=True)

    add(
        Result(5, "few-shot fleet: 30 prompts, batch 2, embedded model", "examples/s", targets=(None, 5)),
        fleet,
        rounds,
        200,
    )
    add(
        Result(6, "search for λ: 21 values, two validation sets of 1,000", "searches/h", targets=(20, 6)),
        lambdas,
        rounds,
        200,
    )
    add(Result(7, "peak memory, a bank of 30 prompts over one", "bytes", targets=(None, 1.5)), memory, 1)

    def both(model: Model) -> Iterator[str]:
        """The model in fp32, then in bf16."""
        for precision in (torch.float32, torch.bfloat16):
            for of in (model.stock, model.backbone.model):
                of.to(precision)
            yield str(precision).removeprefix("torch.")

    if wanted & {1, 3, 8}:
        small = t5_small(corpus(sst2, mnli))
        for name in both(small):
            exact = name == "float32"
            add(
                Result(
                    1, f"train, T5-small shape, SST-2 text, P = 50, batch 32, {name}", "examples/s", targets=(10, 1.8)
                ),
                training,
                small,
                sst2.task(2000, 10),
                32,
                7,
                rounds,
                2 * exact,
            )
            add(
                Result(3, f"score, T5-small shape, MNLI text, P = 50, {name}", "examples/s", targets=(10, 2)),
                scoring,
                small,
                mnli.task(10, 320),
                32,
                rounds,
                64 * exact,
            )
            if exact:
                add(
                    Result(8, "share of the matrix-product rate, row 1", "operations/s", targets=(None, 0.65)),
                    utilisation,
                    small,
                    sst2.task(2000, 10),
                    32,
                    7,
                    rounds,
                )
        del small
    if wanted & {2, 4}:
        causal = smollm2(corpus(sst2))
        for name in both(causal):
            add(
                Result(
                    2,
                    f"train, SmolLM2-135M shape, SST-2 text, P = 50, batch 16, {name}",
                    "examples/s",
                    targets=(None, 2.5),
                ),
                training,
                causal,
                sst2.task(2000, 10),
                16,
                6,
                rounds,
                0,
            )
            add(
                Result(4, f"score, SmolLM2-135M shape, SST-2 text, P = 50, {name}", "examples/s", targets=(None, 4)),
                scoring,
                causal,
                sst2.task(10, 160),
                32,
                rounds,
                0,
            )
        del causal
    results.sort(key=lambda result: result.number)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    about = f"{machine()}; Python {platform.python_version()}, {versions}; texts: {sst2.origin}; {date.today()}"
    options.out.mkdir(parents=True, exist_ok=True)
    text = f"{table(results)}\n\n{about}.\n"
    (options.out / "table.md").write_text(text, encoding="utf-8")
    content = {"about": about, "results": [asdict(result) for result in results]}
    (options.out / "bench.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
