"""Run under a clock that jumps and in a directory that moves; nothing that a run does may go by either.

python stress/clocks.py --times 20 [--config FILE] [--seed 0]

Each round, `tpv run` with two workers does a few jobs more while every look at the clock gives another time, up to 30
years off; then the directory is copied to a path of another kind, its files get modification times at random, and the
next round goes on there. Exits with 1 if the results differ from a run left alone, or if the places that were left
behind changed.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from kills import artifacts, command, content, differing, parser_of, run_script

# read by every Python that starts with its folder on the path, workers included; datetime is C's own and stays
JUMPING = """
import random, time
_real, _rng = time.time, random.Random()
def _jumping():
    return max(0.0, _real() + _rng.uniform(-1e9, 1e9))
time.time, time.time_ns = _jumping, lambda: int(_jumping() * 1e9)
"""
NAMES = ["plain", "with space", "ünïcode", "a=b,c", "[x]", "deep/er/down", "'quoted'", "#1"]


def main(config: Path, times: int, seed: int, folder: Path) -> int:
    rng = random.Random(seed)
    subprocess.run(command(config, folder / "whole"), check=True, capture_output=True)
    whole, total = content(folder / "whole"), artifacts(folder / "whole")
    (folder / "clock").mkdir()
    (folder / "clock" / "sitecustomize.py").write_text(JUMPING)
    path = os.pathsep.join([str(folder / "clock"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    check = "import time; a = time.time(); print(abs(time.time() - a) > 60 or abs(time.time() - a) > 60)"
    jumps = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True)
    if jumps.stdout != "True\n":
        print("the clock does not jump")
        return 1
    out, done = folder / "first", 0
    while done < times:
        limit = max(1, total * 2 // times)  # so that the work lasts for half of the rounds
        line = command(config, out, "--workers", "2", "--limit", str(limit))
        ended = subprocess.run(line, env=environment, capture_output=True, text=True)
        if ended.returncode or "Traceback" in ended.stderr:
            print(f"code {ended.returncode}: {ended.stderr[-2000:]}")
            return 1
        done += 1
        there = artifacts(out)
        print(f"round {done}: {there} of {total} artifacts in {out.relative_to(folder)!s}", flush=True)
        if there == total:
            different = differing(whole, content(out))
            print(f"{len(whole)} files compared, {len(different)} differ", flush=True)
            if different:
                return 1
        elsewhere = folder / f"round {done}" / rng.choice(NAMES)
        shutil.copytree(out, elsewhere)
        shutil.rmtree(out)
        if there == total:
            shutil.rmtree(elsewhere)
        for file in elsewhere.rglob("*"):
            os.utime(file, (rng.uniform(0, 2e9), rng.uniform(0, 2e9)))
        out = elsewhere
    print(f"{done} rounds, each with another clock and in another place")
    return 0


if __name__ == "__main__":
    run_script(main, parser_of(__doc__))
