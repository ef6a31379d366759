"""Damage a run directory by hand: every damage is found, named and made good.

python stress/damage.py --times 20 [--config FILE] [--seed 0]

Each round damages artifacts of a finished run, one in each way that there is (a flipped bit, a cut file, an empty one,
another job's artifact or file in its place, a record that was edited), and now and then the results; `tpv run` has to
name each and end with the same results. Then `run.json` is damaged, which decides what the directory is of: `tpv run`
has to refuse the directory in one line that names it, and to leave it alone. Exits with 1 if any of that does not hold.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from kills import command, content, differing, parser_of, run_script


def flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1
    file.write_bytes(data)


def cut(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])


def empty(file: Path, rng: random.Random) -> None:
    file.write_bytes(b"")


def edit(file: Path, rng: random.Random) -> None:
    """Change what a record says of its job, as a hand would."""
    record = file.parent / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": rng.random()}))


def other_file(file: Path, rng: random.Random) -> None:
    """The same file of another job of the kind."""
    others = [path for path in file.parent.parent.glob(f"*/{file.name}") if path.read_bytes() != file.read_bytes()]
    if others:
        shutil.copy(rng.choice(others), file)
    else:
        empty(file, rng)


def other_artifact(file: Path, rng: random.Random) -> None:
    """The whole artifact of another job of the kind."""
    others = [path for path in file.parent.parent.iterdir() if path != file.parent]
    if others:
        shutil.rmtree(file.parent)
        shutil.copytree(rng.choice(others), file.parent)
    else:
        empty(file, rng)


WAYS: list[Callable[[Path, random.Random], None]] = [flip, cut, empty, edit, other_file, other_artifact]


def run(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(config, out), capture_output=True, text=True)


def main(config: Path, times: int, seed: int, folder: Path) -> int:
    rng = random.Random(seed)
    out = folder / "out"
    subprocess.run(command(config, out), check=True, capture_output=True)
    whole, manifest = content(out), (out / "run.json").read_bytes()
    done = 0
    for number in range(1, times + 1):
        kinds = sorted(path for path in (out / "jobs").iterdir())
        taken: dict[Path, str] = {}
        for place, way in enumerate(WAYS):  # kinds in turn, so that every way meets every kind
            files = sorted(kinds[(number + place) % len(kinds)].glob("*/*"))
            free = [file for file in files if file.parent not in taken]
            if free:
                file = rng.choice(free)
                way(file, rng)
                taken[file.parent] = f"{way.__name__} of {file.parent.parent.name}/{file.name}"
        results = out / rng.choice(["results.parquet", "timings.parquet"])
        if number % 3 == 0:
            rng.choice([flip, cut, empty])(results, rng)
        ended = run(config, out)
        for place, what in taken.items():
            if not any(str(place) in line for line in ended.stderr.splitlines() if line.startswith("damaged")):
                print(f"round {number}: not named: {what}\n{ended.stderr}")
                return 1
        if ended.returncode or "Traceback" in ended.stderr:
            print(f"round {number}: code {ended.returncode}: {ended.stderr}")
            return 1
        if number % 3 == 0 and f"damaged, made again: {results}" not in ended.stderr:
            print(f"round {number}: not named: {results}\n{ended.stderr}")
            return 1
        done += len(taken) + (number % 3 == 0)
        different = differing(whole, content(out))
        print(f"round {number}: {', '.join(taken.values())}; {len(different)} files differ", flush=True)
        if different:
            return 1
        rng.choice([flip, cut, empty])(out / "run.json", rng)
        ended = run(config, out)
        named = ended.stderr.count("\n") == 1 and str(out / "run.json") in ended.stderr
        if ended.returncode != 2 or not named or differing(whole, content(out)):
            print(f"round {number}: a damaged run.json ended with code {ended.returncode}: {ended.stderr}")
            return 1
        done += 1
        (out / "run.json").write_bytes(manifest)
    print(f"{done} damages, all found, named and made good (run.json: refused)")
    return 0


if __name__ == "__main__":
    run_script(main, parser_of(__doc__))
