"""Start a second `tpv run` on a run directory that one is at work in: it is refused, and the first is not disturbed.

python stress/drivers.py --times 20 [--config FILE] [--seed 0]

Every second driver starts at a random moment of the first, or together with it; prints one line for each and exits with
1 if one was not refused in one line that names the first, or if the first's results differ from a run left alone.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

from kills import command, content, differing, parser_of, run_script


def start(config: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(config, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refused(errors: str, holder: int) -> bool:
    return errors.count("\n") == 1 and "is in use; got process" in errors and f" {holder} on " in errors


def main(config: Path, times: int, seed: int, folder: Path) -> int:
    rng = random.Random(seed)
    subprocess.run(command(config, folder / "whole"), check=True, capture_output=True)
    whole, out, done = content(folder / "whole"), folder / "out", 0
    while done < times:
        drivers = [start(config, out), start(config, out)]  # whoever is faster holds the directory
        try:
            while all(driver.poll() is None for driver in drivers):
                time.sleep(0.05)
            loser, winner = sorted(drivers, key=lambda driver: driver.poll() is None)
            if loser.returncode != 2 or not refused(loser.communicate()[1], winner.pid):
                print(f"two together: the other ended with code {loser.returncode}")
                return 1
            done += 1
            print(f"{done}: started together, one was refused", flush=True)
            while done < times:
                time.sleep(rng.uniform(0, 3))
                second = start(config, out)
                said, errors = second.communicate()
                if winner.poll() is not None or "jobs are done" in said:  # the first had ended, or was about to
                    break
                if second.returncode != 2 or not refused(errors, winner.pid):
                    print(f"a second driver ended with code {second.returncode}: {errors}")
                    return 1
                done += 1
                print(f"{done}: a second one was refused", flush=True)
            errors = winner.communicate()[1]
            if winner.returncode:
                print(f"the first ended with code {winner.returncode}: {errors}")
                return 1
        finally:
            for driver in drivers:
                driver.kill()
        different = differing(whole, content(out))
        print(f"the first is done: {len(whole)} files compared, {len(different)} differ", flush=True)
        if different:
            return 1
        shutil.rmtree(out)
    print(f"{done} second drivers, all refused; none did any harm")
    return 0


if __name__ == "__main__":
    run_script(main, parser_of(__doc__))
