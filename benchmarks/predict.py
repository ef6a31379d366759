"""Is `tpv plan --workers N` right? Predict a run with 1 and with 2 workers, run it, and print the error.

python benchmarks/predict.py [--config configs/smoke.toml] [--workers 1,2]

For a quiet machine with as many cores as workers times `run.cpus`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tpv.execution.artifacts import Store
from tpv.execution.estimate import measure
from tpv.execution.overview import sizes
from tpv.execution.plan import work_units
from tpv.studies.cells import cells
from tpv.studies.config import read_config
from tpv.studies.jobs.base import in_order
from tpv.studies.lab import Lab

ROOT = Path(__file__).resolve().parents[1]


def took(config: Path, out: Path, workers: int) -> float:
    begun = time.perf_counter()
    line = [sys.executable, "-m", "tpv.cli", "run", str(config), "--out", str(out), "--workers", str(workers)]
    subprocess.run(line, check=True, capture_output=True)
    return time.perf_counter() - begun


def main(path: Path, counts: list[int]) -> None:
    config = read_config(path)
    every = work_units(config, in_order(cell.job for cell in cells(config)))
    known = sizes(config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = measure(Lab(config, Store(folder / "none")))
        costs = measured.costs(every, known)
        for workers in counts:
            expected, real = measured.wall(every, costs, workers), took(path, folder / f"run{workers}", workers)
            error = (expected - real) / real
            print(f"{workers} workers: predicted {expected:.0f} s, took {real:.0f} s, error {error:+.0%}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "smoke.toml")
    parser.add_argument("--workers", default="1,2")
    arguments = parser.parse_args()
    main(arguments.config, [int(count) for count in arguments.workers.split(",")])
