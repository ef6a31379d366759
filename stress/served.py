"""Be hard on `tpv serve`: random mixes, changes under load, kill -9 during uploads, malformed requests, overload.

python stress/served.py mixes|changes|kills|malformed|schema|overload [--times N] [--seconds 60] [--seed 0]

mixes      random prompts, lengths and sizes of request, sixteen at once, against `tpv.predict`
changes    a prompt is changed and deleted under load; no answer may be a mixture of versions
kills      the server is killed while prompts are uploaded; what it acknowledged has to be there, whole
malformed  requests that do not fit, hand-made and mutated: only 4xx, nothing written elsewhere, still serving
schema     schemathesis makes requests from the OpenAPI schema
overload   three times the load that it can bear: the memory stays, what is accepted is answered, the rest is 429

Prints what it tried and what came of it, and exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import psutil

import tpv
from tpv.prompts.algebra import load_any

KEY = "a key for stress alone"
TASKS = ("mini/sst2", "mini/yelp", "mini/mnli", "mini/trec")
WORDS = [
    "the",
    "a",
    "film",
    "plot",
    "is",
    "never",
    "dull",
    "and",
    "good",
    "not",
    "man",
    "garden",
    "eating",
    "an",
    "apple",
    "in",
    "every",
    "word",
    "of",
    "it",
]
CLOSE = 1e-4  # of log-probabilities, fp32
MOST_GROWTH = 1.1


class Server:
    """`tpv serve` in a process of its own, on a library of its own."""

    def __init__(self, library: Path, *options: str) -> None:
        line = [sys.executable, "-m", "tpv.cli", "serve", "--library", str(library), "--port", "0", *options]
        told = os.environ | {"TPV_API_KEY": KEY}
        self.process = subprocess.Popen(line, env=told, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        words = self.process.stderr.readline().split()
        if "serving" not in words:
            raise SystemExit(f"no server: {' '.join(words)} {self.process.stderr.read()}")
        self.url = words[words.index("at") + 1]
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.client = tpv.Client(self.url, KEY, timeout=120)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def served(library: Path, *options: str) -> Iterator[Server]:
    server = Server(library, *options)
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        if server.process.wait(60) != 0:
            raise SystemExit(f"the server ended with code {server.process.returncode}")


def filled(
    folder: Path, backbone: tpv.Backbone, each: int = 3, tokens: int = 4
) -> dict[str, tuple[str, tpv.SoftPrompt]]:
    """A library of vectors as training would leave them; the task and the prompt that each is served as."""
    folder.mkdir(parents=True)
    found = {}
    for number in range(each * len(TASKS)):
        task = TASKS[number % len(TASKS)]
        init = tpv.SoftPrompt.sample(backbone, tokens + 2 * (number % 2), seed=number % 3)
        noise = tpv.SoftPrompt.normal(backbone, init.num_tokens, seed=1000 + number).tensor
        tuned = init.tuned_to(init.tensor + noise, task)
        (tuned - init).save(folder / f"v{number}.safetensors")
        found[f"v{number}"] = task, init + (tuned - init)
    return found


def texts_of(rng: random.Random) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(rng.choice([1, 1, 2, 3, 8, 20]))]


def mixes(given: argparse.Namespace, folder: Path, backbone: tpv.Backbone) -> int:
    rng, known = random.Random(given.seed), filled(folder / "library", backbone)
    tasks = {name: tpv.load_task(name) for name in TASKS}
    asked = [(rng.sample(sorted(known), rng.choice([1, 1, 1, 2])), texts_of(rng)) for _ in range(given.times)]
    with served(folder / "library") as server, ThreadPoolExecutor(16) as pool:

        def ask(one: tuple[list[str], list[str]]) -> list[dict[str, Any]]:
            body = {"prompt": one[0], "texts": one[1]}
            found: list[dict[str, Any]] = server.client._json("POST", "/v1/predict", json=body)["results"]
            return found

        answers = list(pool.map(ask, asked))
    rows, wrong, worst = 0, 0, 0.0
    for (names, texts), results in zip(asked, answers, strict=True):
        for name, result in zip(names, results, strict=True):
            table = tpv.predict(backbone, tasks[known[name][0]], known[name][1], texts).to_pylist()
            for ours, row in zip(result["predictions"], table, strict=True):
                far = max(abs(a - b) for a, b in zip(ours["log_probs"].values(), row["log_probs"], strict=True))
                same = (ours["predicted"], ours["said"]) == (row["predicted"], row["said"])
                rows, wrong, worst = rows + 1, wrong + (far > CLOSE or not same), max(worst, far)
    print(f"{given.times} requests, {rows} rows: {wrong} differ; log-probabilities within {worst:.1e}")
    return int(wrong > 0)


def changes(given: argparse.Namespace, folder: Path, backbone: tpv.Backbone) -> int:
    known = filled(folder / "library", backbone)
    texts, task = [" ".join(WORDS[i : i + 8]) for i in range(12)], tpv.load_task("mini/sst2")
    expressions = ["init:1 + v0", "init:2 + 3*v0", "ties(v0, v4, density=0.5) + init:3"]
    del known
    stop, wrong, seen, took = threading.Event(), Counter[str](), Counter[str](), []
    with served(folder / "library") as server:
        expected = {}
        for text in expressions:
            digest = server.client.put("x", text, task="mini/sst2")["digest"]
            prompt = tpv.SoftPrompt.load(folder / "library" / "x.safetensors")
            expected[digest] = tpv.predict(backbone, task, prompt, texts)["log_probs"].to_pylist()

        def ask() -> None:
            http = server.client._http
            while not stop.is_set():
                answer = http.post("/v1/predict", json={"prompt": "x", "texts": texts})
                seen[str(answer.status_code)] += 1
                if answer.status_code != 200:
                    wrong["status"] += answer.status_code != 404
                    continue
                (result,) = answer.json()["results"]
                for row, right in zip(result["predictions"], expected[result["digest"]], strict=True):
                    values = row["log_probs"].values()
                    wrong["mixture"] += max(abs(a - b) for a, b in zip(values, right, strict=True)) > CLOSE

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(given.times):
            if number % 3 == 2:
                server.client.delete("x")
                wrong["not deleted"] += server.client._http.get("/v1/prompts/x").status_code != 404
                continue
            begun = time.perf_counter()
            put = server.client.put("x", expressions[number % len(expressions)], task="mini/sst2")
            took.append(time.perf_counter() - begun)
            wrong["not live"] += server.client.prompt("x")["version"] != put["version"]
        stop.set()
        for thread in threads:
            thread.join()
    bad = +wrong
    took.sort()
    spread = f"put in {1000 * took[len(took) // 2]:.0f} ms (median), {1000 * took[int(len(took) * 0.99)]:.0f} ms (p99)"
    print(f"{given.times} changes under load, {dict(seen)} answers: {dict(bad) or 'no mixture'}; {spread}")
    return int(bool(bad))


def kills(given: argparse.Namespace, folder: Path, backbone: tpv.Backbone) -> int:
    rng, library = random.Random(given.seed), folder / "library"
    filled(library, backbone)
    whole: dict[str, set[str]] = {}  # digests that may be under a name: the last acknowledged, and later tries
    lost, puts = 0, 0
    for number in range(given.times):
        server = Server(library)
        for name, digests in whole.items():
            try:
                lost += server.client.prompt(name)["digest"] not in digests
            except tpv.TpvError as error:
                print(error)
                lost += 1
        stop, lock = threading.Event(), threading.Lock()

        def upload(seed: int, server: Server = server, stop: threading.Event = stop, lock: Any = lock) -> None:
            nonlocal puts
            own = random.Random(seed)
            while not stop.is_set():
                name = f"folder/p{own.randrange(12)}-{seed % 4}"
                prompt = tpv.SoftPrompt.normal(backbone, own.randint(1, 100), seed=own.randrange(10**6))
                with lock:
                    whole.setdefault(name, set()).add(prompt.digest)
                with suppress(tpv.TpvError):
                    server.client.put(name, prompt)
                    with lock:
                        whole[name], puts = {prompt.digest}, puts + 1

        threads = [threading.Thread(target=upload, args=(4 * number + i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.2, 1.5))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        never = [name for name in whole if not (library / f"{name}.safetensors").exists()]
        for name in never:  # tried, and not acknowledged
            del whole[name]
        broken = 0
        for path in library.rglob("*.safetensors"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load_any(path)
            except tpv.TpvError:
                broken += 1
        lost += broken
        print(f"{number + 1}: killed; {puts} puts acknowledged, {len(whole)} names, {lost} lost or broken", flush=True)
    return int(lost > 0)


BODIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/v1/predict", {"prompt": "v0", "texts": ["a good film"]}),
    (
        "POST",
        "/v1/predict",
        {"expression": "init:1 + 0.5*(v0 + v4)", "task": "mini/sst2", "rows": [{"sentence": "good"}]},
    ),
    ("POST", "/v1/generate", {"prompt": "v0", "texts": ["good"], "max_new_tokens": 2}),
    ("PUT", "/v1/prompts/fuzz", {"expression": "init:1 + ties(v0, v4, density=0.2)", "task": "mini/sst2"}),
    ("PUT", "/v1/prompts/fuzz", {"expression": "init:1 + v0", "task": {"labels": ["a", "b"], "template": "{text}"}}),
)
NASTY: tuple[Any, ...] = (
    None, True, -1, 10**400, 1e308, "", "\0", "../../etc/passwd", "/etc/passwd", "\ud800", "a" * 5000, [], {}, [[]], [None],
    {"a": 1}, float("nan"), float("inf"), "__import__('os').system('touch pwned')", "init:" + "9" * 30, "(" * 300,
    "v0.__class__", "ties(" * 100, "{text.__class__}", "\u202e", "%00", "${7*7}", ["v0"] * 200, {"$ref": "#"},
)  # fmt: skip
PATHS = (
    "/v1/prompts/..%2f..%2fx", "/v1/prompts/%2e%2e/x", "//", "/v1//prompts", "/v1/prompts/%00", "/v1/prompts/\u00e9",
    "/v1/prompts/a/../../b", "/%2e%2e/%2e%2e/etc/passwd", "/v1/prompts/" + "a/" * 60, "/openapi.json/..", "/metrics/../v1",
    "/v1/similarity?names=" + "a," * 500, "/v1/prompts/C:%5Cx", "/v1/prompts/con", "/v1/prompts/.tpv-index.json",
)  # fmt: skip


def mutated(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """A request that is not what it should be."""
    method, path, body = rng.choice(BODIES)
    body = json.loads(json.dumps(body))
    headers = {"Content-Type": "application/json"}
    kind = rng.randrange(7)
    if kind == 0:
        body[rng.choice([*body, "more"])] = rng.choice(NASTY)
    elif kind == 1:
        body.pop(rng.choice(list(body)))
    elif kind == 2:
        method, path = rng.choice(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"]), rng.choice(PATHS)
    elif kind == 3:
        deep = rng.choice([b"[", b'{"a":', b'{"prompt":[']) * rng.randint(50, 20_000)
        return method, path, deep, headers
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    if kind in (4, 5):
        broken = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        content = bytes(broken[: rng.randint(1, len(broken))] if kind == 5 else broken)
    if kind == 6:
        headers["Content-Type"] = rng.choice(
            ["text/plain", "", "application/octet-stream", "multipart/form-data", "x" * 500]
        )
        content = content if rng.random() < 0.5 else rng.randbytes(rng.randint(0, 2000))
    return method, path, content, headers


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def malformed(given: argparse.Namespace, folder: Path, backbone: tpv.Backbone) -> int:
    rng = random.Random(given.seed)
    filled(folder / "place" / "library", backbone)
    (folder / "place" / "precious").write_text("precious")
    before = everything(folder / "place")
    seen, odd = Counter[int](), Counter[str]()
    with served(folder / "place" / "library") as server, httpx2.Client(timeout=60) as http:
        for _ in range(given.times):
            method, path, content, headers = mutated(rng)
            headers["Authorization"] = f"Bearer {KEY}"
            try:
                answer = http.request(method, server.url + path, content=content, headers=headers)
            except httpx2.HTTPError as error:
                odd[type(error).__name__] += 1
                continue
            seen[answer.status_code] += 1
            if answer.status_code >= 500 or "Traceback" in answer.text or str(folder) in answer.text:
                odd[f"{answer.status_code} {method} {path[:40]} {content[:60]!r}"] += 1
        server.client.predict("v0", ["still serving"])
        with suppress(tpv.TpvError):
            server.client.delete("fuzz")
    new = {path for path in everything(folder / "place") if path not in before}
    print(f"{given.times} requests, statuses {dict(sorted(seen.items()))}; odd: {dict(odd)}; new files: {sorted(new)}")
    return int(bool(odd) or bool(new) or Path("pwned").exists())


def schema(given: argparse.Namespace, folder: Path, backbone: tpv.Backbone) -> int:
    filled(folder / "library", backbone)
    with served(folder / "library") as server:
        line = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--phases", "fuzzing"]
        line += ["--max-examples", str(max(1, given.times // 12)), "-H", f"Authorization: Bearer {KEY}"]
        line += [
            "--checks",
            "not_a_server_error",
            "--mode",
            "all",
            "--suppress-health-check",
            "all",
            "--seed",
            str(given.seed),
        ]
        done = subprocess.run(line, capture_output=True, text=True, cwd=folder)
        print("\n".join(done.stdout.splitlines()[-12:]))
        server.client.put(
            "after", tpv.SoftPrompt.sample(backbone, 4), task="mini/sst2"
        )  # it may have deleted all others
        server.client.predict("after", ["still serving"])
    return done.returncode


def overload(given: argparse.Namespace, folder: Path, backbone: tpv.Backbone) -> int:
    filled(folder / "library", backbone)
    rng = random.Random(given.seed)
    bodies = [{"prompt": f"v{rng.randrange(12)}", "texts": texts_of(rng)} for _ in range(400)]
    rows = sum(len(body["texts"]) for body in bodies) / len(bodies)
    seen, sizes = Counter[str](), []

    async def ask(http: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        try:
            async with http.post("/v1/predict", json=body) as answer:
                await answer.read()
                seen[str(answer.status)] += 1
        except aiohttp.ClientError as error:
            seen[type(error).__name__] += 1

    async def closed(http: aiohttp.ClientSession, seconds: float) -> float:
        end, count = time.monotonic() + seconds, 0

        async def client() -> None:
            nonlocal count
            while time.monotonic() < end:
                await ask(http, rng.choice(bodies))
                count += 1

        await asyncio.gather(*(client() for _ in range(32)))
        return count / seconds

    async def load() -> tuple[float, int]:
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(server.url, connector=connector, headers=headers) as http:
            await closed(http, 5)
            rate = 3 * await closed(http, 10)
            base = server.memory()
            seen.clear()
            tasks, end, at = [], time.monotonic() + given.seconds, time.monotonic()
            while time.monotonic() < end:
                at += rng.expovariate(rate)
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                tasks.append(asyncio.create_task(ask(http, rng.choice(bodies))))
                if len(tasks) % 50 == 0:
                    sizes.append(server.memory())
            await asyncio.gather(*tasks)
            return rate, base

    with served(folder / "library", "--queue-rows", "1024") as server:
        rate, base = asyncio.run(load())
        server.client.predict("v0", ["still serving"])
    growth = max(sizes) / base
    print(
        f"{rate:.0f} requests/s ({rate * rows:.0f} rows/s) for {given.seconds:.0f} s: {dict(seen)}; "
        f"memory {base / 2**20:.0f} MiB, at most {growth:.3f} times that"
    )
    return int(set(seen) - {"200", "429"} != set() or growth > MOST_GROWTH or "429" not in seen)


WHAT = {one.__name__: one for one in (mixes, changes, kills, malformed, schema, overload)}
TIMES = {"mixes": 1000, "changes": 1000, "kills": 20, "malformed": 10_000, "schema": 2000, "overload": 1}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--times", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.times = arguments.times or TIMES[arguments.what]
    with tempfile.TemporaryDirectory() as place:
        sys.exit(WHAT[arguments.what](arguments, Path(place), tpv.load_backbone("mini", device="cpu")))
