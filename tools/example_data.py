"""Write the small files that the docs and the examples read: made-up film reviews of the embedded model's world."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

import tpv

FIELD = "sentence: "  # what the task's template puts before a text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("examples/data"))
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    task = tpv.load_task("mini/sst2")
    few, rest = task.examples("train")[:60], task.examples("test")
    files = {"reviews": few, "reviews_test": rest[:200], "reviews_new": rest[200:]}
    for name, rows in files.items():
        columns = {"review": [row.source.removeprefix(FIELD) for row in rows]}
        if name != "reviews_new":
            columns["feeling"] = [row.target for row in rows]
        csv.write_csv(pa.table(columns), out / f"{name}.csv", csv.WriteOptions(quoting_style="needed"))


if __name__ == "__main__":
    main()
