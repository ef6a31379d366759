"""Kill `tpv run` with `kill -9` at random moments, again and again; it has to end with the same results.

python tests/kills.py --times 20 [--config configs/smoke.toml] [--seed 0]

Prints one line a kill and exits with 1 if anything differs from a run that nobody disturbed.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command(config: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "tpv.cli", "run", str(config), "--out", str(out)]


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


def main(config: Path, times: int, seed: int, folder: Path) -> int:
    rng = random.Random(seed)
    begun = time.monotonic()
    subprocess.run(command(config, folder / "whole"), check=True, capture_output=True)
    total, whole = artifacts(folder / "whole"), content(folder / "whole")
    print(f"undisturbed: {time.monotonic() - begun:.1f} s, {total} artifacts", flush=True)
    out, killed = folder / "killed", 0
    while killed < times:
        if (out / "results.parquet").exists():  # it got to the end: begin again, so that kills keep hitting work
            if content(out) != whole:
                break
            shutil.rmtree(out)
        # anywhere in the run, whatever the machine's speed; then any moment, loading and writing results included
        goal, delay = rng.randint(0, total - 1), rng.uniform(0, 4)
        process = subprocess.Popen(command(config, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while artifacts(out) < goal and process.poll() is None:
            time.sleep(0.02)
        try:
            process.wait(delay)
            print(f"ended by itself with code {process.returncode}", flush=True)
            if process.returncode:
                return 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            print(f"kill {killed}: {delay:.2f} s after artifact {goal}; {artifacts(out)} are there", flush=True)
    subprocess.run(command(config, out), check=True, capture_output=True)
    one, two = whole, content(out)
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    leftovers = sorted(str(path) for path in out.rglob("*.part*"))
    print(f"{killed} kills, {len(one)} files compared, {len(different)} differ, {len(leftovers)} leftovers")
    for name in (*different[:10], *leftovers[:10]):
        print(f"  {name}")
    return 1 if different or leftovers else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "smoke.toml")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sys.exit(main(arguments.config, arguments.times, arguments.seed, Path(place)))
