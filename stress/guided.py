"""Feed readers malformed files that a coverage-guided fuzzer (atheris: `pip install atheris`) finds on its own.

python stress/guided.py --reader prompts --seconds 300

Mutates whole files, and keeps those that reach lines of tpv no other did; what must not happen is as in stress/fuzz.py,
which knows the formats and gets deeper. Exits with 77 without atheris, with another code where anything was found: the
input is then in the folder where it was started.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

try:
    import atheris
except ImportError:
    print("needs atheris: pip install atheris")
    sys.exit(77)

with atheris.instrument_imports(include=["tpv"]):
    import fuzz
import mutations as m

# where a reader looks, and valid files to begin with
PLACES: dict[str, tuple[str, Callable[[], tuple[bytes, ...]]]] = {
    "prompts": ("item.safetensors", fuzz.prompt_files),
    "released": ("released/origin_0/sst2.bin", fuzz.released_files),
    "tasks": ("own.toml", lambda: (m.as_toml(fuzz.TASK),)),
    "configs": ("config.toml", lambda: (m.as_toml(fuzz.CONFIG),)),
    "data": ("rows.jsonl", lambda: (fuzz.data_files()[".jsonl"],)),
    "scores": ("scores.parquet", lambda: (fuzz.scored(),)),
}


def main(name: str, seconds: int) -> None:
    place, seeds = PLACES[name]
    fuzz._warm_up(name)
    fuzz.constants.HF_HUB_OFFLINE = True
    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as base:
        for number, content in enumerate(seeds()):
            (Path(corpus) / str(number)).write_bytes(content)

        def one(data: bytes) -> None:
            def make(rng: Random, folder: Path) -> None:
                if name in ("tasks", "configs"):
                    (folder / "rows.csv").write_text(fuzz.CSV)
                    (folder / "own.toml").write_bytes(m.as_toml(fuzz.TASK))
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                if name == "released":
                    (folder / place).with_name("origin_0.bin").write_bytes(fuzz.released_files()[0])
                (folder / place).write_bytes(data)

            fuzz.attempt(fuzz.Reader(make, fuzz.READERS[name].read), Random(0), Path(base))

        limits: list[Any] = [f"-max_total_time={seconds}", "-rss_limit_mb=8192", "-max_len=20000", "-timeout=60"]
        atheris.Setup([sys.argv[0], corpus, "-print_final_stats=1", *limits], one)
        atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=PLACES, default="prompts")
    parser.add_argument("--seconds", type=int, default=300)
    arguments = parser.parse_args()
    main(arguments.reader, arguments.seconds)
