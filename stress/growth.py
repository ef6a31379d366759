"""Watch the memory of one process over a run of many jobs.

python stress/growth.py --times 500

Prints the resident size after the tenth job and the largest after any later one, by kind of job, and exits with 1 if the
second is more than 1.2 times the first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tpv.execution.execute import run
from tpv.execution.plan import WorkUnit
from tpv.memory import keep_memory
from tpv.studies.cells import cells
from tpv.studies.config import build_config
from tpv.studies.jobs.base import in_order

MOST = 1.2
ALL = {
    "name": "growth",
    "model": {"name": "mini", "device": "cpu"},
    "prompt": {"tokens": 4},
    "families": [{"name": "f", "sources": ["mini/mnli", "mini/qnli", "mini/sst2"], "targets": ["mini/snli"]}],
    "sources": {"training": {"steps": 2, "batch_size": 4, "select": "last"}},
    "combination": {"scale_step": 0.5},
    "transfer": {
        "shots": [0, 4],
        "batch_size": [[4, 2]],
        "attempt_schedule": [[4, 2, 1]],
        "baseline_inits": 0,
        "training": {"steps": 2, "select": "last"},
        "attempt_training": {"select": "last"},
    },
    "negation": {"scales": [0, 1], "methods": ["sum - own vector"]},
    "cost": {"steps": 1},
    "limits": {"train": 40, "validation": 10, "test": 20},
    "run": {"energy": False},
}


class Watcher:
    """What `tpv run` tells about its jobs, as a reporter; keeps the resident size after each unit."""

    def __init__(self, _: float) -> None:
        self.process = psutil.Process()
        self.jobs = 0
        self.sizes: list[tuple[int, str, int]] = []

    def begin(self, total: int, done: int) -> None:
        """Nothing is done yet."""

    def unit(self, unit: WorkUnit, weight: float) -> None:
        """Begun is not done."""

    def step(self, _: Any) -> None:
        """Steps are not watched."""

    def done(self, unit: WorkUnit) -> None:
        self.jobs += len(unit.jobs)
        self.sizes.append((self.jobs, unit.kind, self.process.memory_info().rss))


def main(times: int, folder: Path) -> int:
    keep_memory()  # as the command does
    starts = 2
    while (
        len(in_order(cell.job for cell in cells(build_config(ALL | {"seeds": {"inits": starts}}, where="growth"))))
        < times
    ):
        starts += 1
    config = build_config(ALL | {"seeds": {"inits": starts}}, where="growth")
    watchers: list[Watcher] = []

    @contextmanager
    def watched(weight: float) -> Iterator[Watcher]:
        watchers.append(Watcher(weight))
        yield watchers[-1]

    outcome = run(config, folder / "run", limit=times, reporter=watched)  # type: ignore[arg-type]
    assert not outcome.failed, outcome.failed
    sizes = watchers[0].sizes
    tenth = next(size for jobs, _, size in sizes if jobs >= 10)
    for kind in dict.fromkeys(kind for _, kind, _ in sizes):
        jobs, last = next((jobs, size) for jobs, of, size in reversed(sizes) if of == kind)
        print(f"{kind}: {last / 2**20:.0f} MiB after its last, job {jobs}")
    largest = max(size for jobs, _, size in sizes if jobs > 10)
    end = psutil.Process().memory_info().rss
    ratio = max(largest, end) / tenth
    print(
        f"{outcome.ran} jobs in one process: {tenth / 2**20:.0f} MiB resident after the tenth, at most {largest / 2**20:.0f} "
        f"later, {end / 2**20:.0f} at the end: {ratio:.2f} times"
    )
    return 1 if ratio > MOST else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sys.exit(main(arguments.times, Path(place)))
