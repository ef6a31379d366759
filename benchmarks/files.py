"""How fast `tpv predict FOLDER --input` labels a long file, and how much memory that takes.

python benchmarks/files.py [--rows 1000000] [--seed 0]

Writes a CSV of generated reviews and a folder of the embedded model with a prompt as it is drawn, labels the file in a
process of its own, and prints rows a second (loading included) and that process's peak of resident memory. Then checks
that every row is there, in its order, with a label.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import tpv
from tpv.evaluation.tuned import PROMPT_FILE, About, ModelChoice, Tuned

TASK = "mini/sst2"
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def write_rows(path: Path, rows: int, seed: int) -> None:
    """Reviews of the embedded task, each with a number so that no two are the same."""
    texts = [row.source.removeprefix("sentence: ") for row in tpv.load_task(TASK).examples("train")]
    draw = Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "sentence"])
        for number in range(rows):
            writer.writerow([number, f"{draw.choice(texts)} {number}"])


def write_folder(folder: Path, seed: int) -> None:
    """A tuned folder, but for the tuning: what is labelled how takes the same time."""
    folder.mkdir()
    prompt = tpv.SoftPrompt.sample(tpv.load_backbone("mini", device="cpu"), num_tokens=20, seed=seed)
    prompt.save(folder / PROMPT_FILE)
    Tuned(tpv.load_task(TASK), prompt, About(model=ModelChoice(name="mini"))).save(folder)


def label(folder: Path, source: Path, target: Path) -> tuple[float, int]:
    """Seconds, and bytes at the peak."""
    line = [sys.executable, "-m", "tpv.cli", "predict", folder, "--input", source, "--output", target, "--overwrite"]
    begun = time.perf_counter()
    child = subprocess.Popen([*map(str, line), "--device", "cpu"])
    _, status, used = os.wait4(child.pid, 0)  # of this child alone, where getrusage adds up all
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"tpv predict ended with {child.returncode}")
    return time.perf_counter() - begun, used.ru_maxrss * UNIT


def check(target: Path, rows: int) -> None:
    labels = set(tpv.load_task(TASK).labels)
    with target.open(newline="") as file:
        found = 0
        for row in csv.DictReader(file):
            if int(row["id"]) != found or row["label"] not in labels or not 0 < float(row["probability"]) <= 1:
                raise SystemExit(f"row {found} went wrong: {row}")
            found += 1
    if found != rows:
        raise SystemExit(f"{found} rows of {rows}")


def main(rows: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        source, target, folder = place / "rows.csv", place / "labelled.csv", place / "tuned"
        write_rows(source, rows, seed)
        write_folder(folder, seed)
        seconds, peak = label(folder, source, target)
        print(f"{rows} rows in {seconds:.1f} s: {rows / seconds:.0f} rows/s, peak {peak / 2**20:.0f} MiB", flush=True)
        check(target, rows)
        print(f"{rows} rows in the output, in their order")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.rows, arguments.seed)
