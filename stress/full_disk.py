"""Let the disk get full while tpv writes: a clear refusal, nothing corrupt, and the same command again once there is room.

python stress/full_disk.py --times 20 [--seed 0]

Every command below is tried so many times on a small tmpfs that has room for a part, drawn anew each time, of what the
command writes. The tmpfs is mounted in a namespace of its own (`unshare -rm`), so that no rights are needed; where that
is not permitted the script says so and exits with 77.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

SKIPPED = 77
SIZE = 16 * 2**20  # bytes of the tmpfs
PAGE = 4096
CONFIG = """
name = "tiny"
experiments = ["sources", "combination", "transfer", "cost"]
model = {name = "mini", device = "cpu"}
prompt = {tokens = 2}
seeds = {inits = 1}
families = [{name = "f", sources = ["mini/sst2", "mini/trec"], targets = ["mini/imdb"]}]
limits = {train = 8, validation = 4, test = 6}
sources = {training = {steps = 2, batch_size = 2, select = "last"}}
combination = {scale_step = 0.5}
cost = {steps = 1}
run = {energy = false}
[transfer]
shots = [0, 4]
methods = ["random", "attempt", "sum"]
batch_size = [[4, 2]]
attempt_schedule = [[4, 2, 1]]
training = {steps = 2, select = "last"}
attempt_training = {select = "last"}
"""


def in_namespace(arguments: list[str]) -> int:
    """Run this script again where a tmpfs may be mounted."""
    mount = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'
    with tempfile.TemporaryDirectory() as place:
        wrapped = ["unshare", "-rm", "sh", "-c", mount, str(SIZE), place]
        try:
            subprocess.run([*wrapped, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            print("no tmpfs can be mounted here (unshare -rm), so no disk was filled")
            return SKIPPED
        return subprocess.run([*wrapped, sys.executable, __file__, *arguments, "--inside", place]).returncode


@contextmanager
def filled(folder: Path, room: int) -> Iterator[None]:
    """Leave so many bytes of a file system."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 2**16)
        except OSError:
            pass
        file.truncate(max(0, file.seek(0, os.SEEK_END) - room))
    try:
        yield
    finally:
        ballast.unlink()


def tpv(*arguments: object) -> tuple[int, str]:
    """`tpv ARGUMENTS` in this process: exit code and standard error."""
    from tpv import cli

    sys.argv, errors = ["tpv", *map(str, arguments)], io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), errors.getvalue()
    raise AssertionError("cli.main returned")


def files(folder: Path) -> dict[str, str]:
    """Hashes of what a command left, but for what is about time."""
    kept = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("record.json", "trainings.json", "timings.parquet", ".results.json", ".lock")
        and "cost" not in path.name
        and path.name not in ("report.html", "report.md")
    ]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def used(folder: Path) -> int:
    """Bytes of the pages that files take."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


Command = Callable[[Path], list[object]]


def commands(stock: Path) -> dict[str, Command]:
    """What is tried, by what it writes; `stock` holds what they read."""
    prompt, vector = stock / "tuned" / "prompt.safetensors", stock / "tuned" / "vector.safetensors"
    short = ["--tokens", 4, "--steps", 2, "--batch-size", 2, "--shots", 8, "--task", "mini/sst2"]
    return {
        "tune": lambda out: ["tune", *short, "--out", out / "new"],
        "tune --portable": lambda out: ["tune", "--portable", *short[:6], *short[8:], "--out", out / "new"],
        "vector": lambda out: ["vector", "add", vector, vector, "--out", out / "sum.safetensors"],
        "vector similarity": lambda out: ["vector", "similarity", vector, vector, "--out", out / "matrix.csv"],
        "evaluate": lambda out: ["evaluate", prompt, "--task", "mini/sst2", "--predictions", out / "p.parquet"],
        "export": lambda out: ["export", prompt, "--peft", out / "adapter"],
        "import": lambda out: ["import", stock / "adapter", "--out", out / "back"],
        "run": lambda out: ["run", stock / "tiny.toml", "--out", out / "run"],
        "report": lambda out: ["report", out / "run"],
    }


def attempt(out: Path, command: list[object], room: int, whole: dict[str, str], begin: Path | None) -> list[str]:
    """One full disk: what is wrong with how it was met. `begin` is copied to `out` first."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(begin, out) if begin else out.mkdir()
    before, faults = files(out), []
    with filled(out.parent, room):
        code, errors = tpv(*command)
    if code == 0:
        faults += ["it had room, and something is missing"] if files(out) != whole else []
    elif code != 2 or errors.count("error: ") != 1 or "No space left on device" not in errors or "Traceback" in errors:
        faults.append(f"code {code}, {errors!r:.500}")
    after = files(out)
    if code and (changed := [name for name in before if after.get(name) not in (before[name], whole.get(name))]):
        faults.append(f"files lost or changed: {changed[:3]}")
    if code and (
        half := [
            name
            for name in after
            if name not in before and after[name] != whole.get(name) and name not in ("run/splits.json", "run/run.json")
        ]
    ):
        faults.append(f"files that are not as they should be: {half[:3]}")
    if left := [str(path) for path in out.rglob("*") if ".part" in path.name]:
        faults.append(f"leftovers: {left[:3]}")
    code_2, errors_2 = tpv(*command)
    if code_2 or files(out) != whole:
        other = sorted(set(files(out).items()) ^ set(whole.items()))
        faults.append(f"with room again: code {code_2}, {errors_2!r:.300}, differs in {other[:3]}")
    return [f"room for {room} bytes: {fault}" for fault in faults] + ["refused"] * (code != 0)


def inside(times: int, seed: int, place: Path) -> int:
    """All commands, on the tmpfs at `place`."""
    rng, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as elsewhere:
        stock = Path(elsewhere)
        (stock / "tiny.toml").write_text(CONFIG)
        made = commands(stock)
        for arguments in (
            made["tune"](stock),
            ["export", stock / "new" / "prompt.safetensors", "--peft", stock / "adapter"],
            ["run", stock / "tiny.toml", "--out", stock / "study" / "run"],
        ):
            code, errors = tpv(*arguments)
            assert code == 0, errors
        (stock / "new").rename(stock / "tuned")
        for name, command in made.items():
            out, begin = place / "out", stock / "study" if name == "report" else None
            shutil.copytree(begin, out) if begin else out.mkdir()
            start = used(out)
            code, errors = tpv(*command(out))
            assert code == 0, errors
            whole, need = files(out), used(out) - start
            refused = 0
            for number in range(times):
                room = 0 if number == 0 else rng.randrange(0, need + PAGE, PAGE)
                faults = attempt(out, command(out), room, whole, begin)
                refused += "refused" in faults
                for fault in (faults := [fault for fault in faults if fault != "refused"]):
                    print(f"{name}: {fault}", flush=True)
                failed += bool(faults)
            print(f"{name}: {times} disks with less room than {need} bytes, {refused} refused", flush=True)
            failed += not refused
            shutil.rmtree(out)
    print(f"{times * len(made)} full disks: {failed} with faults")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        sys.exit(inside(given.times, given.seed, given.inside))
    sys.exit(in_namespace(sys.argv[1:]))
