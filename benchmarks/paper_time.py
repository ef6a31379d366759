"""How long `configs/paper.toml` would take on one A100: an estimate from throughput measured on this machine.

python benchmarks/paper_time.py [--data ../shared/data]

Measures training and scoring of a T5-base-shaped model (random weights) on rows of the data sets' real lengths, and
this machine's matrix product rate in the same process. The share of that rate which the work reaches is then assumed
for an A100's peak; the paper's plan says how many rows there are. No A100 is involved.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from tpv import mini
from tpv.execution.overview import sizes
from tpv.execution.plan import Work, work
from tpv.models import Seq2SeqBackbone
from tpv.studies.cells import cells
from tpv.studies.config import read_config, task_spec
from tpv.studies.jobs.base import in_order
from tpv.tasks import load_task

ROOT = Path(__file__).resolve().parents[1]
A100 = {"TF32": 156e12, "bf16": 312e12}  # dense peak, floating-point operations a second, NVIDIA's data sheet
PIECES_PER_WORD = 1.35  # T5's tokenizer on English; it cannot be fetched here
TARGET = 3  # tokens of a label word, end of sequence included
ROWS, PROMPT = 16, 100


def lengths(names: list[str], data: Path) -> dict[str, int]:
    """Mean tokens of each task's inputs, cut at 256."""
    result = {}
    for name in names:
        rows = load_task(name, data_dir=data).examples("test")
        words = [min(256, PIECES_PER_WORD * len(row.source.split())) for row in rows]
        result[name] = round(statistics.mean(words))
    return result


def operations(length: int, labels: int, config: T5Config) -> float:
    """Floating-point operations of one forward pass over one row: 2 a weight and position, and attention."""
    width, inner, layers = config.d_model, config.d_ff, config.num_layers
    positions, decoded = PROMPT + length, TARGET * labels
    encoder = positions * layers * (2 * (4 * width**2 + 2 * width * inner) + 4 * positions * width)
    keys = positions * config.num_decoder_layers * 2 * 2 * width**2
    decoder = decoded * config.num_decoder_layers * (2 * (6 * width**2 + 2 * width * inner) + 4 * positions * width)
    return encoder + keys + decoder + decoded * 2 * width * config.vocab_size


def timed(call, repeats: int = 3) -> float:
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main(data: Path) -> None:
    config = read_config(ROOT / "configs" / "paper.toml")
    known, names = sizes(config), [*config.source_tasks, *config.targets]
    long = lengths(names, data)
    shape = T5Config(vocab_size=32128, d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0)
    torch.manual_seed(0)
    model = Seq2SeqBackbone(
        T5ForConditionalGeneration(shape), AutoTokenizer.from_pretrained(mini.model_folder()), "t5-base shape"
    )
    square = torch.randn(2048, 2048)
    shares: dict[str, list[float]] = {"train": [], "score": []}
    index = torch.zeros(ROWS, dtype=torch.long)
    for length in sorted({min(long.values()), round(statistics.median(long.values())), max(long.values())}):
        rows = [tuple(torch.randint(5, 32000, (length,)).tolist()) for _ in range(ROWS)]
        words = [(7 + i, 11, 1) for i in range(3)]
        bank = torch.randn(1, PROMPT, 768, requires_grad=True)

        def train(rows=rows, bank=bank, word=words[0]):
            model.nll(bank, index, rows, [word] * ROWS).sum().backward()

        def score(rows=rows, bank=bank, words=words):
            model.score_labels(bank.detach(), index, rows, words)

        rate = 2 * 2048**3 / timed(lambda: square @ square)
        for what, call, flops in (
            ("train", train, 2 * operations(length, 1, shape)),  # the weights are frozen: forward, and one backward
            ("score", score, operations(length, 3, shape)),
        ):
            seconds = timed(call)
            shares[what].append(ROWS * flops / seconds / rate)
            print(
                f"{what}: {length} tokens, {ROWS / seconds:.1f} rows/s, {shares[what][-1]:.0%} of "
                f"{rate / 1e9:.0f} GFLOP/s"
            )
    share = {what: statistics.median(values) for what, values in shares.items()}
    total, by = Work(), {"train": 0.0, "score": 0.0}
    for job in in_order(cell.job for cell in cells(config)):
        amount = work(job, known)
        total += amount
        if not job.reads:
            continue
        task = max(job.reads, key=lambda name: long[name])  # of several tasks, the longest: rather too much
        labels = len(task_spec(task).labels)
        by["train"] += amount.train_rows * 2 * operations(long[task], 1, shape)
        by["score"] += amount.score_rows * operations(long[task], labels, shape)
    print(f"mean input tokens: {long}")
    print(f"plan: {total.train_rows:,} rows trained on, {total.score_rows:,} scored; {sum(by.values()):.2g} operations")
    for name, peak in A100.items():
        hours = {what: by[what] / (share[what] * peak) / 3600 for what in by}
        print(
            f"estimate for one A100 in {name}, at the share reached here (training {share['train']:.0%}, scoring "
            f"{share['score']:.0%}): {sum(hours.values()):.0f} h ({hours['train']:.0f} training, "
            f"{hours['score']:.0f} scoring)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    main(parser.parse_args().data)
