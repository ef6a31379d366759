"""Run on a Ray cluster of two machines with networks of their own, and pull the cable between them.

python stress/namespaces.py --times 5 [--config FILE] [--seed 0]

Two network namespaces with one cable (a veth pair), Ray's head and the driver in one, a machine in the other, which has
a /tmp/ray of its own too; a worker in each. At a random moment the cable is pulled: for some seconds, which nobody must
notice, or for good, when the driver has to go on with what is left and the machine joins anew for the next run. Exits with 1
if results differ from a run in one process that nobody disturbed, with 77 where namespaces cannot be made (needs root,
`ip` and `unshare`).
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
from kills import RAY_WORKER, artifacts, command, content, differing, parser_of, run_script

HEAD, OTHER = "tpv-head", "tpv-other"
ADDRESS = {HEAD: "10.99.0.1", OTHER: "10.99.0.2"}
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus", "1"]
SHORT = (1.0, 8.0)  # seconds without a cable that Ray lives through


def ip(*line: str) -> None:
    subprocess.run(["ip", *line], check=True, capture_output=True, text=True)


def inside(name: str, line: list[str]) -> list[str]:
    return ["ip", "netns", "exec", name, *line]


def processes(name: str) -> list[psutil.Process]:
    ids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    return [psutil.Process(int(number)) for number in ids if psutil.pid_exists(int(number))]


def kill_all(name: str) -> None:
    gone = processes(name)
    for process in gone:
        process.kill()
    psutil.wait_procs(gone, 30)


def remove(name: str) -> None:
    kill_all(name)
    ip("netns", "delete", name)


def join() -> None:
    """Start Ray on the other machine, in a namespace of mounts in which /tmp/ray is its own."""
    line = [*RAY, "--address", f"{ADDRESS[HEAD]}:6379", "--node-ip-address", ADDRESS[OTHER]]
    own = 'mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && exec "$@"'
    subprocess.run(inside(OTHER, ["unshare", "-m", "sh", "-c", own, "sh", *line]), check=True, capture_output=True)


def connect(stack: ExitStack) -> None:
    """Two namespaces, a cable, Ray."""
    for name in ADDRESS:
        ip("netns", "add", name)
        stack.callback(remove, name)
    ip("link", "add", "eth0", "netns", HEAD, "type", "veth", "peer", "name", "eth0", "netns", OTHER)
    for name, address in ADDRESS.items():
        ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", name, "link", "set", device, "up")
    line = [*RAY, "--head", "--port", "6379", "--node-ip-address", ADDRESS[HEAD], "--include-dashboard", "false"]
    subprocess.run(inside(HEAD, line), check=True, capture_output=True)
    join()


def cable(state: str) -> None:
    ip("-n", OTHER, "link", "set", "eth0", state)


def at_work() -> bool:
    """Whether the other machine has a worker that calculates."""
    return any(RAY_WORKER in " ".join(process.cmdline()) for process in processes(OTHER))


def main(config: Path, times: int, seed: int, folder: Path) -> int:
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        print("needs root, ip and unshare")
        return 77
    os.environ["RAY_AUTH_MODE"] = "disabled"
    rng = random.Random(seed)
    subprocess.run(command(config, folder / "whole"), check=True, capture_output=True)
    total, whole = artifacts(folder / "whole"), content(folder / "whole")
    with ExitStack() as stack:
        try:
            connect(stack)
        except subprocess.CalledProcessError as error:
            print(f"no namespaces or no Ray in them: {error.stderr}")
            return 77
        for number in range(1, times + 1):
            out = folder / f"run {number}"
            line = command(config, out, "--executor", "ray", "--address", f"{ADDRESS[HEAD]}:6379", "--workers", "2")
            driver = subprocess.Popen(inside(HEAD, line), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            stack.callback(driver.kill)
            goal, good = rng.randint(1, total // 2), number % 2 == 0
            while driver.poll() is None and (artifacts(out) < goal or not at_work()):
                time.sleep(0.05)
            there = artifacts(out)
            cable("down")
            if not good:
                time.sleep(rng.uniform(*SHORT))
                cable("up")
            errors = driver.communicate()[1]
            different = differing(whole, content(out))
            print(
                f"{number}: cable pulled {'for good' if good else 'for seconds'} after {there} of {total} artifacts; driver: "
                f"code {driver.returncode}, {errors.count('a worker died')} workers lost; {len(whole)} files compared, {len(different)} differ",
                flush=True,
            )
            if driver.returncode or different or there == total:
                print(errors[-2000:])
                return 1
            if good:
                kill_all(OTHER)
                cable("up")
                join()
    print(f"{times} runs on two machines, each with a cable pulled")
    return 0


if __name__ == "__main__":
    run_script(main, parser_of(__doc__))
