"""A task with its rows: examples as text, splits, few-shot samples."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random

from tpv.errors import TpvError, did_you_mean
from tpv.tasks.spec import TaskSpec, render

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text: `source` goes into the model, `target` is the label word it should say.

    `cue` comes between the two where a decoder-only model reads them. `value` is the row's own number where the
    label words are numbers and `target` is only the nearest of them. `answers` are all texts that are right, where a
    text task has several.
    """

    id: str
    source: str
    target: str
    label: int
    cue: str = ""
    value: float | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task (see `TaskSpec`) and its examples by split. Make one with `tpv.load_task`.

    Attributes:
        origin: where the rows come from, for people: the hub's data set and revision, a local copy, files.
    """

    spec: TaskSpec
    splits: Mapping[str, tuple[Example, ...]]
    origin: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def labels(self) -> tuple[str, ...]:
        """The label words, in id order."""
        return self.spec.labels

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split}={len(rows)}" for split, rows in self.splits.items())
        kind = f"{len(self.labels)} labels" if self.labels else self.spec.output
        return f"Task({self.name!r}, {kind}, {sizes})"

    def examples(self, split: str) -> tuple[Example, ...]:
        """All examples of one split.

        Raises:
            TpvError: unknown split, or one without rows.
        """
        if split not in SPLITS:
            raise TpvError(f"unknown split {split!r} of task {self.name!r}", fix=did_you_mean(split, SPLITS))
        rows = self.splits.get(split, ())
        if not rows:
            filled = [name for name in SPLITS if self.splits.get(name)]
            raise TpvError(
                f"split {split!r} of task {self.name!r} is empty",
                expected="at least one example",
                got=f"rows only in {filled}" if filled else "no rows at all",
            )
        return rows

    def render(self, row: Mapping[str, object]) -> str:
        """The input text that the task's template makes of a row, a mapping of its fields; other keys are ignored.

        Raises:
            TpvError: a field that the row lacks, or that is not text.
        """
        fields = {}
        for name in self.spec.fields:
            value = row.get(name)
            if not isinstance(value, str):
                raise TpvError(
                    f"a row of task {self.name!r}",
                    expected=f"text in {', '.join(self.spec.fields)}",
                    got=f"{name}: {type(value).__name__}" if name in row else f"only {', '.join(map(str, row))}",
                )
            fields[name] = value
        return render(self.spec.template, fields)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over template, label words and every example of every split."""
        digest = hashlib.sha256(self.spec.model_dump_json(include={"template", "cue", "labels"}).encode())
        for split in SPLITS:
            for example in self.splits.get(split, ()):
                digest.update(json.dumps([split, *_content(example)]).encode())
        return digest.hexdigest()

    def split_sha256(self, split: str) -> str:
        """sha256 of one split's examples, a JSON list each: to tell which split of two tasks differs."""
        digest = hashlib.sha256()
        for example in self.splits.get(split, ()):
            digest.update(json.dumps(_content(example)).encode() + b"\n")
        return digest.hexdigest()

    def few_shot(self, shots: int, seed: int) -> "Task":
        """The task with only `shots` training examples *in total*, class distribution kept.

        The draw is stratified (largest remainders), and `seed` alone decides it: it is neither the
        seed of the initialization nor that of the data order (paper, appendix A).

        Raises:
            TpvError: fewer than 1 shot, or more than there are training examples.
        """
        rows = self.examples("train")
        if isinstance(shots, bool) or not isinstance(shots, int) or not 1 <= shots <= len(rows):
            raise TpvError(f"shots of task {self.name!r}", expected=f"a whole number from 1 to {len(rows)}", got=shots)
        chosen = stratified_sample([row.label for row in rows], shots, Random(f"few-shot {seed}"))
        return replace(self, splits={**self.splits, "train": tuple(rows[i] for i in chosen)})

    def limited(self, rows: Mapping[str, int], seed: int) -> "Task":
        """The task with at most so many examples in the splits named, class distribution kept."""
        splits = dict(self.splits)
        for split, most in rows.items():
            have = splits.get(split, ())
            if len(have) > most:
                chosen = stratified_sample([row.label for row in have], most, Random(f"limit {split} {seed}"))
                splits[split] = tuple(have[i] for i in sorted(chosen))
        return replace(self, splits=splits)


def _content(example: Example) -> list[str | float]:
    """What of an example goes into hashes; those of examples without a number are older than numbers."""
    number = [] if example.value is None else [example.value]
    return [example.id, example.source, example.target, *number, *example.answers]


def concatenate(tasks: Sequence[Task]) -> Task:
    """One task of all rows of several, in order, and the union of their label words: multi-task SPoT's data.

    Where one of them is a text task, so is the whole.

    Raises:
        TpvError: no tasks.
    """
    if not tasks:
        raise TpvError("tasks to put together", expected="at least one", got="none")
    text = any(task.spec.output == "text" for task in tasks)
    labels = () if text else tuple(dict.fromkeys(word for task in tasks for word in task.labels))
    spec = tasks[0].spec.model_copy(
        update={"name": "+".join(task.name for task in tasks), "labels": labels, "metric": "exact_match", "positive": 0}
        | ({"output": "text"} if text else {})
    )
    return Task(
        spec,
        {
            split: tuple(
                replace(row, id=f"{task.name}:{row.id}", label=labels.index(row.target) if labels else 0)
                for task in tasks
                for row in task.splits.get(split, ())
            )
            for split in SPLITS
        },
    )


def stratified_folds(labels: Sequence[int], folds: int, rng: Random) -> list[int]:
    """The fold of each row, 0 to `folds` - 1: the rows of each label in any order, dealt out in turn."""
    order = list(range(len(labels)))
    rng.shuffle(order)
    order.sort(key=lambda row: labels[row])  # stable: rows of a label next to each other
    found = [0] * len(labels)
    for place, row in enumerate(order):
        found[row] = place % folds
    return found


def stratified_sample(labels: Sequence[int], size: int, rng: Random) -> list[int]:
    """Indices of `size` rows with the label distribution of all rows, by largest remainders.

    Ties between remainders are broken by the draw, so that no class is favoured by its id.
    """
    by_label: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(label, []).append(index)
    classes = sorted(by_label)
    exact = {label: size * len(by_label[label]) / len(labels) for label in classes}
    counts = {label: int(exact[label]) for label in classes}
    left = size - sum(counts.values())
    rng.shuffle(classes)
    for label in sorted(classes, key=lambda label: counts[label] - exact[label])[:left]:
        counts[label] += 1
    chosen: list[int] = []
    for label in sorted(by_label):
        chosen += rng.sample(by_label[label], counts[label])
    rng.shuffle(chosen)
    return chosen
