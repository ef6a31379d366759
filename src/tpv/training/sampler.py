"""The order in which rows are trained on."""

from collections.abc import Iterator, Sequence
from random import Random

BUCKET_BATCHES = 8  # batches are cut from this many batches' worth of rows, sorted by length


def batches(lengths: Sequence[int], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless shuffled batches of row indices, rows of like length together.

    Every epoch visits every row once. Rows are shuffled, sorted by length within blocks of a few
    batches, cut into batches, and the batches of a block shuffled; `seed` alone decides the order.
    """
    rng = Random(f"data order {seed}")
    order = list(range(len(lengths)))
    while True:
        rng.shuffle(order)
        for start in range(0, len(order), batch_size * BUCKET_BATCHES):
            block = sorted(order[start : start + batch_size * BUCKET_BATCHES], key=lambda i: lengths[i])
            cut = [block[i : i + batch_size] for i in range(0, len(block), batch_size)]
            rng.shuffle(cut)
            yield from cut
