"""The allocator keeps memory that was freed: seen in the page faults of making and dropping the same tensors."""

import os
import platform
import subprocess
import sys

import pytest

CHILD = """
import resource, sys, torch
from tpv.memory import keep_memory
told = keep_memory() if "keep" in sys.argv else False
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): [torch.ones(4_000_000) for _ in range(8)]
before = faults()
for _ in range(10): [torch.ones(4_000_000) for _ in range(8)]
print(int(told), faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_kept():
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}

    def run(*arguments, **more):
        child = [sys.executable, "-c", CHILD, *arguments]
        return map(
            int, subprocess.run(child, env=env | more, capture_output=True, text=True, check=True).stdout.split()
        )

    told, kept = run("keep")
    # what glibc does without being told depends on what lies where; so told, it gives everything back
    _, given_back = run(MALLOC_MMAP_THRESHOLD_="131072")
    assert told
    assert kept < given_back / 10
    told, _ = run("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert not told  # the user's word goes
