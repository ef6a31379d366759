"""How a task's rows become its train, validation and test splits."""

from collections import Counter
from collections.abc import Mapping
from random import Random

from tpv.errors import TpvError
from tpv.tasks.spec import TaskSpec
from tpv.tasks.task import SPLITS, Example, Task, stratified_sample

HELD_OUT_FRACTION, HELD_OUT_MOST = 0.1, 1000
JUDGES = 50  # rows of a split that can judge by themselves
PAPER_LARGE, PAPER_VALIDATION = 10_000, 1_000


def hold_out(rows: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Split off a stratified tenth (1,000 at most, 1 at least): `(kept, held out)`.

    Copies of a text stay together, unless that would hold out more than twice as many rows or leave none of a label.
    """
    size = max(1, min(HELD_OUT_MOST, round(HELD_OUT_FRACTION * len(rows))))
    chosen = stratified_sample([row.label for row in rows], size, Random(f"hold out {seed}"))
    copies = Counter(row.source for row in rows)
    texts: dict[str, int] = {}
    for i in chosen:
        if sum(texts.values()) < size:
            texts[rows[i].source] = copies[rows[i].source]
    kept, held = [row for row in rows if row.source not in texts], [row for row in rows if row.source in texts]
    drawn = set(chosen)
    plain = [row for i, row in enumerate(rows) if i not in drawn]
    if len(held) > 2 * size or {row.label for row in kept} < {row.label for row in plain}:
        return plain, [row for i, row in enumerate(rows) if i in drawn]
    return kept, held


def paper_splits(given: Mapping[str, list[Example]], seed: int) -> dict[str, list[Example]]:
    """The splits of the paper (appendix A), which has labels for two of a source's splits only.

    Over 10,000 training rows, 1,000 of them become validation and the source's validation split becomes test;
    otherwise training stays whole and the source's validation split (its test split where it has no other) is
    halved into validation and test.

    Raises:
        TpvError: no training rows, or no other labelled split.
    """
    train = given.get("train")
    other = given.get("validation") or given.get("test")
    if not train or not other or len(other) < 2:
        raise TpvError(
            "the splits of the paper",
            expected="a training split and a labelled validation split",
            got={split: len(rows) for split, rows in given.items()},
        )
    rng = Random(f"paper splits {seed}")
    if len(train) > PAPER_LARGE:
        chosen = set(rng.sample(range(len(train)), PAPER_VALIDATION))
        return {
            "train": [row for i, row in enumerate(train) if i not in chosen],
            "validation": [row for i, row in enumerate(train) if i in chosen],
            "test": other,
        }
    shuffled = rng.sample(other, len(other))
    half = len(other) // 2
    return {"train": train, "validation": shuffled[:half], "test": shuffled[half:]}


def apply_split_rule(
    spec: TaskSpec,
    splits: dict[str, list[Example]],
    seed: int,
    origin: Mapping[str, str] | None = None,
    *,
    hold_out_missing: bool = True,
) -> Task:
    """The task with its source's splits made into train, validation and test by the rule the task names.

    Args:
        hold_out_missing: hold out rows for splits that the source does not have; else they are empty.

    Raises:
        TpvError: too few rows to hold any out; also see `paper_splits`.
    """
    if spec.splits == "paper":
        splits = paper_splits(splits, seed)
    elif "train" in splits and hold_out_missing:
        for split in ("test", "validation"):
            if split not in splits:
                if len(splits["train"]) < 3:
                    raise TpvError(
                        f"task {spec.name!r} has too few rows to hold out a {split} split",
                        expected="at least 3 training rows, or a file for each split",
                        got=len(splits["train"]),
                    )
                splits["train"], splits[split] = hold_out(splits["train"], seed)
    return Task(spec, {split: tuple(splits.get(split, ())) for split in SPLITS}, origin or {})
