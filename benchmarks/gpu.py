"""Is tpv right on this device, and how fast? For a machine that is lent for minutes: each part has its own time limit.

python benchmarks/gpu.py [--device cuda] [--parts parity,rates] [--limit 120] [--data ../shared/data] [--out runs/gpu]

`parity`: T5 and Llama of small sizes in fp32 and bf16: loss and prompt gradient beside float64 on the CPU, labels
beside `generate()`, a bank beside separate runs, a repeated and a resumed training, replayed graphs beside ordinary
passes, generated text beside `generate()`. `rates`: rows a second of training and scoring at the shapes of T5-base and
SmolLM2-135M beside PEFT, interleaved, the first steps left out.

Each part runs in a process of its own, and what it found is written at once: gpu.jsonl, gpu.md. Ends with 1 where a
check of parity failed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration
from workloads import LABELS, texts, tokenizer
from workloads import smollm2 as smollm2_shape

import tpv
from tpv.models import CausalBackbone, Seq2SeqBackbone
from tpv.models.generation import Decoding
from tpv.models.graphs import Graphs
from tpv.outputs.label import label_tokens
from tpv.tasks import Task
from tpv.training import checkpoint

WORDS = ("the film is good", "a man is eating an apple in the garden and it is not good", "no", "the dog sleeps") * 3
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
EXACT = 2e-5  # relative; beside it a pass may err as much as a plain one does, twice over


def corpus(task: Task) -> tuple[str, ...]:
    """What a tokenizer is made from."""
    labels = tuple(f"{label}\nlabel: {label}" for label in task.labels) * 500
    return tuple(row.source for row in task.examples("train"))[:2000] + WORDS + labels


def small(kind: str, task: Task, dtype: torch.dtype, device: str) -> Any:
    """A random backbone of a few layers."""
    torch.manual_seed(0)
    words = tokenizer(corpus(task), causal=kind == "llama")
    size = len(words)
    if kind == "llama":
        shape = LlamaConfig(
            vocab_size=size,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
        )
        return CausalBackbone(LlamaForCausalLM(shape).to(device), words, "small llama", dtype)
    shape = T5Config(
        vocab_size=size,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=4,
        num_decoder_layers=4,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return Seq2SeqBackbone(T5ForConditionalGeneration(shape).to(device), words, "small t5", dtype)


def plain_loss(model: Any, causal: bool, prompt: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """A row's loss by one ordinary pass, as `transformers` alone would be called."""
    embed, device = model.get_input_embeddings(), model.device
    read = (*source, *target[:-1]) if causal else source
    text = embed(torch.tensor([read], device=device))
    inputs = torch.cat([prompt.to(device)[None].to(text.dtype), text], dim=1)
    if causal:
        logits = model(inputs_embeds=inputs, use_cache=False).logits[0, len(prompt) + len(source) - 1 :]
    else:
        shifted = torch.tensor([(0, *target[:-1])], device=device)
        logits = model(inputs_embeds=inputs, decoder_input_ids=shifted, use_cache=False).logits[0]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    picked = logits.log_softmax(-1).gather(1, torch.tensor(target, device=device)[:, None])
    return -picked.sum()


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative, by Euclidean norms."""
    ours, theirs = ours.detach().cpu().double(), theirs.detach().cpu().double()
    return float((ours - theirs).norm() / theirs.norm())


def losses_of(backbone: Any, bank: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """Losses [N] and gradient of a bank, as often as it is called."""
    causal = isinstance(backbone, CausalBackbone)
    sources = backbone.encode_sources(list(WORDS), 64, ["label:"] * len(WORDS) if causal else None)
    targets = [backbone.encode_target(("negative", "positive")[i % 2]) for i in range(len(WORDS))]
    index = torch.arange(len(WORDS)) % len(bank)

    def call() -> tuple[Tensor, Tensor]:
        live = bank.clone().requires_grad_(True)
        losses = backbone.nll(live, index, sources, targets)
        (gradient,) = torch.autograd.grad(losses.sum(), live)
        return losses.detach().cpu(), gradient.cpu()

    return call


def plain_of(backbone: Any, bank: Tensor) -> tuple[Tensor, Tensor]:
    """The same by ordinary passes, row by row."""
    causal = isinstance(backbone, CausalBackbone)
    sources = backbone.encode_sources(list(WORDS), 64, ["label:"] * len(WORDS) if causal else None)
    live = bank.clone().requires_grad_(True)
    rows = [
        plain_loss(
            backbone.model, causal, live[i % len(bank)], source, backbone.encode_target(("negative", "positive")[i % 2])
        )
        for i, source in enumerate(sources)
    ]
    losses = torch.stack(rows)
    (gradient,) = torch.autograd.grad(losses.sum().cpu(), live)
    return losses.detach().cpu(), gradient.cpu()


class _Stopped(Exception):
    pass


def _stop_at(step: int) -> Callable[[tpv.Progress], None]:
    def callback(progress: tpv.Progress) -> None:
        if progress.step == step:
            raise _Stopped

    return callback


def parity_of(kind: str, precision: str, device: str, task: Task) -> Iterator[dict[str, Any]]:
    """Every check of one model in one precision: what was measured, and what it may be at most."""
    dtype = PRECISIONS[precision]
    backbone = small(kind, task, dtype, device)
    generator = torch.Generator().manual_seed(1)
    bank = backbone.embeddings().std() * torch.randn(3, 10, 128, generator=generator)
    exact = small(kind, task, torch.float32, "cpu")
    exact.model.double()
    if precision == "bf16":  # the weights that the other one reads
        exact.model.load_state_dict({k: v.double() for k, v in backbone.model.cpu().state_dict().items()})
        backbone.model.to(device)
    truth = plain_of(exact, bank.double())
    plain = plain_of(backbone, bank)
    least = EXACT if precision == "fp32" else 1e-3
    allowed = [2 * distance(p, t) + least for p, t in zip(plain, truth, strict=True)]
    call = losses_of(backbone, bank)
    graphs, backbone.graphs = backbone.graphs, Graphs(False)
    ordinary = call()
    backbone.graphs = graphs
    replayed = [call() for _ in range(3)]
    for name, found in (("ordinary pass", ordinary), ("replayed graph", replayed[-1]), ("plain pass", plain)):
        for what, ours, theirs, most in zip(("loss", "gradient"), found, truth, allowed, strict=True):
            yield {"check": f"{what} of a {name} v. float64", "value": distance(ours, theirs), "most": most}
    same = all(torch.equal(a, b) for a, b in zip(replayed[-1], replayed[-2], strict=True))
    yield {"check": "a graph replayed twice, bits that differ", "value": float(not same), "most": 0.0}
    yield {"check": "graphs captured", "value": float(len(graphs._made)), "least": float(device != "cpu")}
    yield from labels_of(backbone, bank, task)
    yield from text_of(backbone, bank)
    yield from trainings_of(backbone, task, precision)


def labels_of(backbone: Any, bank: Tensor, task: Task) -> Iterator[dict[str, Any]]:
    """Label words: what greedy decoding says, beside `generate()`, row by row."""
    words = label_tokens(backbone, task)
    causal = isinstance(backbone, CausalBackbone)
    sources = backbone.encode_sources(list(WORDS), 64, ["label:"] * len(WORDS) if causal else None)
    index = torch.arange(len(WORDS)) % len(bank)
    scores = backbone.score_labels(bank, index, sources, words)
    longest = max(map(len, words))
    said = _stock(backbone, bank, index, sources, longest)
    theirs = [next((c for c, word in enumerate(words) if row[: len(word)] == word), -1) for row in said]
    differ = sum(a != b for a, b in zip(scores.greedy.tolist(), theirs, strict=True))
    yield {"check": "greedy labels v. generate(), rows that differ", "value": float(differ), "most": 0.0}


def text_of(backbone: Any, bank: Tensor) -> Iterator[dict[str, Any]]:
    """Text generated for rows of unlike length together, beside `generate()`, row by row."""
    causal = isinstance(backbone, CausalBackbone)
    sources = backbone.encode_sources(list(WORDS), 64, ["label:"] * len(WORDS) if causal else None)
    index = torch.arange(len(WORDS)) % len(bank)
    ours = backbone.generate(bank, index, sources, Decoding(max_new_tokens=8))
    theirs = _stock(backbone, bank, index, sources, 8)
    differ = sum(a != b[: len(a)] for a, b in zip(ours, theirs, strict=True))
    # rounding may turn a word where two are as likely in bf16
    most = 0.0 if backbone.model.dtype == torch.float32 else len(WORDS) / 3
    yield {"check": "generated text v. generate(), rows that differ", "value": float(differ), "most": most}


@torch.inference_mode()
def _stock(backbone: Any, bank: Tensor, index: Tensor, sources: Any, count: int) -> list[tuple[int, ...]]:
    """What `generate()` says to each row by itself."""
    model, said = backbone.model, []
    causal = isinstance(backbone, CausalBackbone)
    for source, k in zip(sources, index.tolist(), strict=True):
        text = model.get_input_embeddings()(torch.tensor([source], device=model.device))
        inputs = torch.cat([bank[k].to(text)[None], text], dim=1)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=model.device)
        row = model.generate(inputs_embeds=inputs, attention_mask=mask, max_new_tokens=count, do_sample=False)[0]
        said.append(tuple(row.tolist()[0 if causal else 1 :]))
    return said


def trainings_of(backbone: Any, task: Task, precision: str) -> Iterator[dict[str, Any]]:
    """A bank beside separate trainings; the same training again; a training that was stopped and resumed."""
    quiet: Callable[[object], None] = lambda _: None  # noqa: E731
    starts = [tpv.SoftPrompt.sample(backbone, 10, seed=seed) for seed in range(3)]
    recipe = tpv.Recipe(steps=16, batch_size=8, lr=0.05, warmup_steps=2, select="last", max_input_length=48)

    def vectors(prompts: list[tpv.SoftPrompt]) -> Tensor:
        return torch.cat([tuned.tensor - start.tensor for tuned, start in zip(prompts, starts, strict=True)])

    together = tpv.fit(backbone, task, starts, recipe, callback=quiet)
    alone = [tpv.fit(backbone, task, start, recipe, callback=quiet) for start in starts]
    # rounding grows in training: of bf16 too little is left to compare a step by step result with
    most = 2e-2 if precision == "fp32" else 0.5
    yield {"check": "bank v. separate trainings", "value": distance(vectors(together), vectors(alone)), "most": most}
    again = tpv.fit(backbone, task, starts, recipe, callback=quiet)
    before, checkpoint.CHECKPOINT_SECONDS = checkpoint.CHECKPOINT_SECONDS, 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        with contextlib.suppress(_Stopped):
            tpv.fit(backbone, task, starts, recipe, callback=_stop_at(9), checkpoint=path)
        resumed = tpv.fit(backbone, task, starts, recipe, callback=quiet, checkpoint=path)
    checkpoint.CHECKPOINT_SECONDS = before
    for name, other in (("repeated", again), ("resumed", resumed)):
        apart = distance(vectors(other), vectors(together))
        yield {"check": f"{name} training, distance", "value": apart, "most": 0.0}


def parity(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The checks of both families in both precisions."""
    task = tpv.load_task("mini/sst2").few_shot(100, 0)
    for kind in ("t5", "llama"):
        for precision in PRECISIONS:
            for found in parity_of(kind, precision, options.device, task):
                good = found["value"] <= found.get("most", float("inf")) and found["value"] >= found.get("least", 0.0)
                yield {"part": "parity", "model": kind, "precision": precision, **found, "ok": good}


def t5_base(words: tuple[str, ...], miniature: bool) -> tuple[Any, Any]:
    """A backbone of T5-base's shape, and what makes the model that PEFT gets."""
    torch.manual_seed(0)
    wide = (
        {"d_model": 64, "d_ff": 128, "num_layers": 2} if miniature else {"d_model": 768, "d_ff": 3072, "num_layers": 12}
    )
    config = T5Config(
        vocab_size=32128, num_heads=2 if miniature else 12, d_kv=64, decoder_start_token_id=0, pad_token_id=0, **wide
    )
    return T5ForConditionalGeneration(config), tokenizer(words, causal=False)


def rates(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows a second, round by round, the contestants in turn."""
    from peers import Peer

    data = options.data if options.data.is_dir() else None
    sst2 = texts("sst2", 3000, data)
    task = sst2.task(2000, 960 if options.device != "cpu" else 16)
    labels = tuple(f"{label}\nlabel: {label}" for label in LABELS["sst2"]) * 1000
    words = tuple(text for text, _ in sst2.rows) + labels
    dtype = torch.bfloat16
    cpu = options.device == "cpu"
    for shape in ("smollm2", "t5-base"):
        if shape == "t5-base":
            stock, vocabulary = t5_base(words, cpu)
            backbone: Any = Seq2SeqBackbone(copy.deepcopy(stock).to(options.device), vocabulary, shape, dtype)
            stock, tokens, batch = stock.to(options.device, dtype), 100, 32
        elif cpu:
            backbone, tokens, batch = small("llama", task, dtype, "cpu"), 20, 16
            stock = None
        else:
            made = smollm2_shape(words)
            made.backbone.model.to(options.device)
            backbone = CausalBackbone(made.backbone.model, made.backbone.tokenizer, shape, dtype)
            stock, tokens, batch = made.stock.to(options.device, dtype), 20, 16
        starts = [tpv.SoftPrompt.sample(backbone, tokens, seed) for seed in range(16)]
        yield from _rates_of(options, shape, backbone, stock, task, starts, batch, Peer)


def _rates_of(
    options: argparse.Namespace, shape: str, backbone: Any, stock: Any, task: Task, starts: Any, batch: int, peer: Any
) -> Iterator[dict[str, Any]]:
    cpu, on = options.device == "cpu", backbone.graphs
    steps = 3 if cpu else 16
    sources = [row.source for row in task.examples("train")], [row.target for row in task.examples("train")]
    tests = [row.source for row in task.examples("test")], [row.target for row in task.examples("test")]
    for number in range(options.rounds):
        found: dict[str, float] = {}
        for bank in (1, 4, 16) if not cpu else (1, 2):
            for name, graphs in (("", on), (", no graphs", Graphs(False))):
                if name and bank > 4:
                    continue
                backbone.graphs = graphs
                found[f"train, bank of {bank}{name}"] = train_rate(backbone, task, starts[:bank], batch, steps)
        backbone.graphs = on
        for bank in (1, 4):
            begun = time.perf_counter()
            tpv.evaluate(backbone, task, starts[:bank], "test", max_input_length=128)
            found[f"score, bank of {bank}"] = bank * len(tests[0]) / (time.perf_counter() - begun)
        if stock is not None and not cpu:
            rival = peer(stock, backbone.tokenizer, starts[0].num_tokens, "tuned")
            if number == 0:
                rival.train(*sources, batch, 4, lr=0.01)
            found["train, PEFT"] = batch / rival.train(*sources, batch, steps, lr=0.01)
            count = len(tests[0]) // 3
            found["score, PEFT"] = count / rival.score(tests[0][:count], tests[1][:count], task.labels, 64)
            rival.close()
        memory = torch.cuda.max_memory_allocated() / 2**30 if not cpu else 0.0
        for name, value in found.items():
            kind = name.split(",")[0]
            ratio = value / found[f"{kind}, PEFT"] if f"{kind}, PEFT" in found else None
            yield {
                "part": "rates",
                "model": shape,
                "precision": "bf16",
                "check": name,
                "round": number,
                "value": value,
                "over PEFT": ratio,
                "GiB": memory,
            }


def train_rate(backbone: Any, task: Task, prompts: list[tpv.SoftPrompt], batch: int, steps: int) -> float:
    """Rows a second of training, the first half of the steps left out: graphs are made in it."""
    ends: list[float] = []

    def after(_: object) -> None:
        ends.append(time.perf_counter())

    recipe = tpv.Recipe(steps=steps, batch_size=batch, lr=0.01, select="last", max_input_length=128)
    tpv.fit(backbone, task, prompts, recipe, callback=after)
    late = ends[len(ends) // 2 :]
    return batch * len(prompts) * (len(late) - 1) / (late[-1] - late[0])


def table(rows: list[dict[str, Any]]) -> str:
    """What was found, as Markdown."""
    lines = ["| part | model | precision | check | value | |", "|---|---|---|---|--:|---|"]
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["part"], row["model"], row["precision"], row["check"]), []).append(row)
    for key, found in groups.items():
        value = statistics.median(row["value"] for row in found)
        ratios = [row["over PEFT"] for row in found if row.get("over PEFT")]
        note = f"{statistics.median(ratios):.2f} × PEFT" if ratios else ""
        if "ok" in found[0]:
            bound = found[0].get("most", found[0].get("least"))
            note = ("ok" if found[0]["ok"] else "**failed**") + f", bound {bound:.3g}"
        lines.append(f"| {' | '.join(key)} | {value:.4g} | {note} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", default="parity,rates")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for each part")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--part", help="run this part here; the script itself says so to the processes it starts")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.part:
        for row in {"parity": parity, "rates": rates}[options.part](options):
            print(json.dumps(row), flush=True)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for part in options.parts.split(","):
        words = ["--device", options.device, "--rounds", options.rounds, "--data", options.data, "--part", part]
        try:
            done = subprocess.run(
                [sys.executable, __file__, *map(str, words)], capture_output=True, text=True, timeout=options.limit
            )
            said, complaint = done.stdout, done.stderr[-2000:] if done.returncode else ""
        except subprocess.TimeoutExpired as late:
            said = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
            complaint = f"{part} ran past its limit of {options.limit:.0f} s"
        found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        rows += found
        with (options.out / "gpu.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        if complaint:
            print(complaint, file=sys.stderr)
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    text = f"{device}, torch {torch.__version__}\n\n{table(rows)}\n"
    (options.out / "gpu.md").write_text(text)
    print(text)
    sys.exit(any(not row.get("ok", True) for row in rows))


if __name__ == "__main__":
    main()
