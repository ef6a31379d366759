"""How fast is `tpv serve` under fifty prompts, beside offline prediction with one prompt and PEFT switching adapters?

python benchmarks/serve.py [--model mini] [--precision fp32] [--rows 2000] [--rounds 3] [--texts 16]

Requests of 1 to --texts texts, each under a prompt drawn at random, from 16 clients at once. Every round measures all,
one after the other, with the same requests. Then latency at half of the load, with and without a window, and what
a single request costs on an idle server. Prints medians over the rounds and writes OUT/serve-MODEL-TEXTS.json. All have
as many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import httpx2
import numpy as np
import psutil

import tpv

HERE = Path(__file__).resolve().parent
MOST_ROWS = 64  # in a batch of the PEFT server
CLIENTS = 16
TASK = "mini/sst2"
Request = tuple[str, list[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def server(line: Sequence[object]) -> Iterator[tuple[str, psutil.Process]]:
    """A server in a process of its own, once it answers."""
    port = free_port()
    process = subprocess.Popen([sys.executable, *map(str, line), "--port", str(port)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            try:
                if httpx2.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx2.HTTPError:
                if process.poll() is not None:
                    raise SystemExit(f"{line} ended with code {process.returncode}") from None
                time.sleep(0.25)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def made_up(backbone: tpv.Backbone, folder: Path, count: int, tokens: int) -> None:
    """Vectors and PEFT adapters of prompts as training would leave them: what answers say does not matter here."""
    for seed in range(count):
        init = tpv.SoftPrompt.sample(backbone, tokens, seed=0)
        tuned = init.tuned_to(init.tensor + tpv.SoftPrompt.normal(backbone, tokens, seed=seed).tensor, TASK)
        (tuned - init).save(folder / "library" / f"p{seed:02}.safetensors")
        tuned.to_peft(folder / "adapters" / f"p{seed:02}")


def traffic(texts: Sequence[str], given: argparse.Namespace, seed: int) -> list[Request]:
    rng, left, found = random.Random(seed), list(texts), []
    while left:
        size = rng.randint(1, given.texts)
        found.append((f"p{rng.randrange(given.prompts):02}", left[:size]))
        left = left[size:]
    return found


def session(url: str) -> aiohttp.ClientSession:
    """A client that takes little time itself: it runs on the cores of what it measures."""
    limits = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(url, connector=limits, timeout=aiohttp.ClientTimeout(600), raise_for_status=True)


async def answered(http: aiohttp.ClientSession, request: Request) -> None:
    prompt, texts = request
    async with http.post("/v1/predict", json={"prompt": prompt, "texts": texts}) as answer:
        await answer.read()


async def saturated(url: str, requests: Sequence[Request]) -> float:
    """Rows a second of so many clients that each wait for their answer."""
    todo = iter(requests)
    async with session(url) as http:

        async def client() -> None:
            for request in todo:
                await answered(http, request)

        begun = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sum(len(texts) for _, texts in requests) / (time.perf_counter() - begun)


async def latencies(url: str, requests: Sequence[Request], rate: float, seed: int) -> list[float]:
    """Seconds of each request where they come at random, `rate` rows a second, whether or not others are answered."""
    rng, found = random.Random(seed), []
    async with session(url) as http:

        async def one(request: Request) -> None:
            begun = time.perf_counter()
            await answered(http, request)
            found.append(time.perf_counter() - begun)

        tasks, at = [], time.perf_counter()
        mean = sum(len(texts) for _, texts in requests) / len(requests)
        for request in requests:
            at += rng.expovariate(rate / mean)
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.append(asyncio.create_task(one(request)))
        await asyncio.gather(*tasks)
    return found


def idle(url: str, backbone: tpv.Backbone, task: tpv.Task, prompt: tpv.SoftPrompt, texts: Sequence[str]) -> list[float]:
    """Milliseconds that a request of one text takes more than predicting it here, in turn."""
    found = []
    with httpx2.Client(base_url=url, timeout=600) as http:
        for text in texts:
            begun = time.perf_counter()
            tpv.predict(backbone, task, prompt, [text])
            bare = time.perf_counter() - begun
            begun = time.perf_counter()
            http.post("/v1/predict", json={"prompt": "p00", "texts": [text]}).raise_for_status()
            found.append(1000 * (time.perf_counter() - begun - bare))
    return found


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    warnings.simplefilter("ignore")
    backbone = tpv.load_backbone(given.model, device="cpu", precision=given.precision)
    task, prompt = tpv.load_task(TASK), tpv.SoftPrompt.sample(backbone, given.tokens, seed=0)
    rows = [row.source for row in task.examples("train")]
    texts = [rows[i % len(rows)] for i in range(given.rows)]
    made_up(backbone, folder, given.prompts, given.tokens)
    longest = max(len(backbone.encode_target(word)) for word in task.labels)
    own = ["-m", "tpv.cli", "serve", "--library", folder / "library"]
    own += ["--model", given.model, "--precision", given.precision, "--device", "cpu", "--timeout", "600"]
    peft = [HERE / "peft_server.py", "--adapters", folder / "adapters", "--model", given.model]
    peft += ["--precision", given.precision, "--new-tokens", longest]
    lines = {"tpv serve": own, "PEFT, a request at a time": peft, "PEFT, batched by adapter": [*peft, "--batch"]}
    if backbone.share_prompts:
        lines["tpv serve, nothing kept"] = [*own, "--cache-mb", "0"]
    speeds: dict[str, list[float]] = {"offline, one prompt": [], **{name: [] for name in lines}}
    results: dict[str, object] = {"threads": os.environ.get("OMP_NUM_THREADS"), **vars(given), "out": None}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(server(line)) for name, line in lines.items()}
        for url, _ in urls.values():
            asyncio.run(saturated(url, [(f"p{k:02}", texts[:1]) for k in range(given.prompts)]))
        tpv.predict(backbone, task, prompt, texts[:100])
        for number in range(given.rounds):
            asked = traffic(texts, given, number)
            begun = time.perf_counter()
            tpv.predict(backbone, task, prompt, texts)
            speeds["offline, one prompt"].append(len(texts) / (time.perf_counter() - begun))
            for name, (url, _) in urls.items():
                fewer = asked if name.startswith("tpv") else asked[: max(CLIENTS, len(asked) // 4)]
                speeds[name].append(asyncio.run(saturated(url, fewer)))
            print({name: round(values[-1], 1) for name, values in speeds.items()}, flush=True)
        url, process = urls["tpv serve"]
        results["MiB"] = process.memory_info().rss / 2**20
        results["idle, ms over bare"] = statistics.median(idle(url, backbone, task, prompt, texts[:50]))
        load = statistics.median(speeds["tpv serve"]) / 2
        waits = {"no window": latencies(url, traffic(texts, given, 7), load, 7)}
        with server([*own, "--window-ms", "5"]) as (windowed, _):
            asyncio.run(saturated(windowed, traffic(texts[:100], given, 99)))
            waits["window 5 ms"] = latencies(windowed, traffic(texts, given, 7), load, 7)
            for name, wait in waits.items():
                quantiles = np.quantile(asyncio.run(wait), [0.5, 0.95, 0.99]) * 1000
                results[f"ms at {load:.0f} rows/s, {name}"] = dict(zip(("p50", "p95", "p99"), quantiles, strict=True))
    results["rows/s"] = {name: statistics.median(values) for name, values in speeds.items()}
    ours = speeds["tpv serve"]
    results["tpv serve over"] = {
        name: statistics.median(a / b for a, b in zip(ours, values, strict=True)) for name, values in speeds.items()
    }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=16, help="of a request at most")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "library").mkdir()
        results = measure(given, folder)
    text = json.dumps(results, indent=2, default=float)
    print(text)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"serve-{given.model.replace('/', '-')}-{given.texts}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
