"""Kill a part of `tpv run` with `kill -9` at random moments, again and again; it has to end with the same results.

python stress/kills.py --times 20 [--victim driver|worker|node] [--executor local|ray] [--workers 2] [--config FILE] [--seed 0]

The driver is what was typed: it is started again after each kill. A worker or a node (a simulated machine of a Ray
cluster) dies under a driver that has to go on. Prints one line a kill and exits with 1 if anything differs from a run
in one process that nobody disturbed, or if a worker outlives its driver.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

from tpv.execution.executors.base import Worker

ROOT = Path(__file__).resolve().parents[1]
RAY_WORKER = f"ray::{Worker.__name__}"  # in the command line of a Ray worker's process
SECONDS_TO_GO = 60  # for a killed driver's workers; Ray takes its time to notice


def command(config: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tpv.cli", "run", str(config), "--out", str(out), *options]


def artifacts(folder: Path) -> int:
    return sum(1 for _ in folder.glob("jobs/*/*/record.json"))


def content(folder: Path) -> dict[str, str]:
    """Hashes of everything in a run directory that is not about time."""
    files = {"results.parquet": (folder / "results.parquet").read_bytes()}
    for path in sorted(folder.glob("jobs/*/*/*")):
        if path.name not in ("record.json", "trainings.json"):
            files[str(path.relative_to(folder))] = path.read_bytes()
    for path in sorted(folder.glob("jobs/measure/*/trainings.json")):
        steps = [row["steps"] for row in json.loads(path.read_text())]
        files[str(path.relative_to(folder))] = json.dumps(steps).encode()
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def differing(one: dict[str, str], two: dict[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


class Machines:
    """A Ray cluster of one machine without a core of its own, and two that work; none of it for other victims."""

    def __init__(self, workers: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.each = max(1, workers // 2)
        self.nodes = [self.cluster.add_node(num_cpus=self.each) for _ in range(2)]
        self.address = self.cluster.address

    def lose_one(self, rng: random.Random) -> str:
        """Kill a machine's processes, and let another one join."""
        gone = self.nodes.pop(rng.randrange(2))
        self.cluster.remove_node(gone, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=self.each))
        return "a machine"

    def workers(self) -> list[psutil.Process]:
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.nodes]
        return [process for raylet in raylets for process in _worker_processes(raylet)]

    def close(self) -> None:
        self.cluster.shutdown()


def _worker_processes(parent: int) -> list[psutil.Process]:
    """The processes below one that are workers of a run."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "multiprocessing.spawn" in line or RAY_WORKER in line:
            found.append(process)
    return found


def main(
    config: Path, times: int, seed: int, folder: Path, victim: str = "driver", executor: str = "local", workers: int = 1
) -> int:
    rng = random.Random(seed)
    begun = time.monotonic()
    subprocess.run(command(config, folder / "whole"), check=True, capture_output=True)
    total, whole = artifacts(folder / "whole"), content(folder / "whole")
    print(f"undisturbed: {time.monotonic() - begun:.1f} s, {total} artifacts", flush=True)
    out, killed, process = folder / "killed", 0, None
    with ExitStack() as stack:
        machines = Machines(workers) if executor == "ray" else None
        options = ["--executor", executor, "--workers", str(workers)]
        if machines is not None:
            stack.callback(machines.close)
            options += ["--address", machines.address]

        def at_work(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
            return machines.workers() if machines else _worker_processes(driver.pid)

        while killed < times:
            if process is None:
                if (out / "results.parquet").exists():  # at the end: begin again, so that kills keep hitting work
                    if content(out) != whole:
                        break
                    shutil.rmtree(out)
                process = subprocess.Popen(
                    command(config, out, *options), stdout=subprocess.DEVNULL, stderr=(folder / "errors").open("ab")
                )
                stack.callback(process.kill)
            # anywhere in the run, whatever the machine's speed; then any moment, loading and writing results included
            goal, delay = rng.randint(0, total - 1), rng.uniform(0, 4)
            if victim != "driver":  # which goes on: this kill comes after the one before
                goal = min(total - 1, artifacts(out) + rng.randint(0, total // 4))
            while artifacts(out) < goal and process.poll() is None:
                time.sleep(0.02)
            try:
                process.wait(delay)
                print(f"ended by itself with code {process.returncode}", flush=True)
                if process.returncode:
                    print((folder / "errors").read_text()[-2000:])
                    return 1
                process = None
                continue
            except subprocess.TimeoutExpired:
                pass
            there = at_work(process)
            if victim == "driver":
                process.kill()
                process.wait()
                process, what = None, "the driver"
                _, alive = psutil.wait_procs(there, SECONDS_TO_GO)
                if alive:
                    print(f"{len(alive)} workers outlive their driver by {SECONDS_TO_GO} s")
                    return 1
            elif victim == "node":
                assert machines is not None
                what = machines.lose_one(rng)
            elif there:
                one = rng.choice(there)
                one.kill()
                what = f"worker {one.pid}"
            else:
                continue
            killed += 1
            print(f"kill {killed}: {what}, {delay:.2f} s after artifact {goal}; {artifacts(out)} are there", flush=True)
        if process is not None:
            code = process.wait()
            print(f"the driver ended with code {code}")
            if code:  # five kills over one bank: it is given up and named, and `tpv run` tries it again
                print((folder / "errors").read_text()[-1000:])
        subprocess.run(command(config, out), check=True, capture_output=True)
    different = differing(whole, content(out))
    leftovers = sorted(str(path) for path in out.rglob("*.part*"))
    print(f"{killed} kills, {len(whole)} files compared, {len(different)} differ, {len(leftovers)} leftovers")
    for name in (*different[:10], *leftovers[:10]):
        print(f"  {name}")
    return 1 if different or leftovers else 0


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """What all scripts that are hard on runs take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "smoke.toml")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run_script(main: Callable[..., int], parser: argparse.ArgumentParser) -> None:
    """Call a script's `main` with its options and a temporary folder, and exit with what it returns."""
    options = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as place:
        sys.exit(main(folder=Path(place), **options))


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--victim", choices=["driver", "worker", "node"], default="driver")
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if (arguments.victim, arguments.executor) == ("node", "local"):
        parser.error("--victim node needs --executor ray")
    if (arguments.victim, arguments.executor, arguments.workers) == ("worker", "local", 1):
        parser.error("--victim worker needs --workers 2 or more: one local worker is the driver")
    run_script(main, parser)
