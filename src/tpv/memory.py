"""What the process asks of the C library's allocator."""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 32 * 2**20  # bytes: glibc maps anything larger on its own, whatever it is told


def keep_memory() -> bool:
    """Let glibc keep what is freed instead of giving it back, where it is glibc and the user has not said otherwise.

    A training step makes and drops the same large temporaries over and over; to be given fresh pages for each, which
    the system clears first, took up to a seventh of the time of a step.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return bool(mallopt(TRIM_THRESHOLD, 2**31 - 1) and mallopt(MMAP_THRESHOLD, LARGEST))
