"""What a tuning will do, said before it is done: rows, labels, truncation, steps, rate, time; and what few rows say."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from tpv.evaluation.encode import ENDLESS
from tpv.evaluation.score import evaluate
from tpv.models import Backbone
from tpv.outputs.scores import wilson
from tpv.progress import Progress, duration
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.embeddings import embedding_rms
from tpv.tasks import SPLITS, Task
from tpv.tasks.spec import FileSource, render
from tpv.tasks.splits import JUDGES
from tpv.training.fit import PromptMethod, fit
from tpv.training.loop import check_selection
from tpv.training.recipe import Recipe

COUNTED = 2000  # rows of a split whose tokens are counted
MEASURED = 4  # steps, the first of which is not counted
SHOWN = 8  # labels


@dataclass(frozen=True)
class Cut:
    """How many of the texts of a split are truncated; `longest` in tokens, template and chat included."""

    cut: int
    rows: int
    longest: int


@dataclass(frozen=True)
class Preview:
    """What a tuning will do.

    Attributes:
        rows: of each split.
        held_out: splits that were held out of the training rows.
        labels: training rows of each label; empty for text.
        cuts: what is truncated, by split.
        template_tokens: of a text's tokens, those of the template, the cue and the chat.
        recipe: with a number for `lr`.
        steps, validations: how many.
        folds: of cross-validation.
        step_seconds: of one step, measured; None where it was not.
        seconds: of all, estimated from it.
    """

    rows: Mapping[str, int]
    held_out: tuple[str, ...]
    labels: Mapping[str, int]
    cuts: Mapping[str, Cut]
    template_tokens: int
    recipe: Recipe
    auto: bool
    steps: int
    validations: int
    folds: int
    step_seconds: float | None
    seconds: float | None

    def lines(self) -> list[str]:
        """It in words, a line for each thing."""
        said = {
            "rows": self._rows(),
            "labels": self._labels(),
            "truncated": self._cuts(),
            "steps": self._steps(),
            "rate": self._rate(),
            "time": self._time(),
            "few rows": self._few(),
        }
        return [f"{title:<10} {text}" for title, text in said.items() if text]

    def _rows(self) -> str:
        use = {"train": "to train on", "validation": "to choose a checkpoint and calibrate by", "test": "to test on"}
        own = {split: ", held out of the training data" if split in self.held_out else "" for split in SPLITS}
        return "; ".join(f"{self.rows[split]} {use[split]}{own[split]}" for split in SPLITS if self.rows.get(split))

    def _labels(self) -> str:
        if not self.labels:
            return "none: the output is text"
        shown = ", ".join(f"{word} {count}" for word, count in list(self.labels.items())[:SHOWN])
        more = len(self.labels) - SHOWN
        return f"{shown}, and {more} more (of the training rows)" if more > 0 else f"{shown} (of the training rows)"

    def _cuts(self) -> str:
        cut, rows = sum(one.cut for one in self.cuts.values()), sum(one.rows for one in self.cuts.values())
        limit, longest = self.recipe.max_input_length, max(one.longest for one in self.cuts.values())
        takes = f"; template, cue and chat take {self.template_tokens} of them" if self.template_tokens else ""
        if self.template_tokens >= limit:
            return (
                f"all: template, cue and chat take {self.template_tokens} tokens of {limit}; raise --max-input-length"
            )
        if not cut:
            return f"no text at {limit} tokens, the longest has {longest}{takes}"
        share = f"{cut} of {rows} texts ({cut / rows:.0%}) at {limit} tokens{takes}; the longest has {longest}"
        also = ", or shorten the template" if 4 * self.template_tokens > limit else ""
        return f"{share}: raise --max-input-length{also}"

    def _steps(self) -> str:
        recipe, train = self.recipe, self.rows["train"]
        size = min(recipe.batch_size, train)
        epochs = self.steps / -(-train // recipe.batch_size)
        chosen = (
            f"the checkpoint chosen by {recipe.select} in {self.validations} validation{'s' * (self.validations != 1)}"
        )
        if recipe.select == "last":
            chosen = "the last checkpoint kept"
        more = f"; before that {self.folds} prompts more, each without a fold" if self.folds else ""
        return f"{self.steps} of {size} rows ({epochs:.3g} epochs), {chosen}{more}"

    def _rate(self) -> str:
        warmup = self.recipe.effective_warmup(self.steps)
        fits = " (auto, fitted to the model)" if self.auto else ""
        return f"{self.recipe.lr:.3g} at its peak{fits}, after {warmup} steps of warm-up; then {self.recipe.schedule}"

    def _time(self) -> str:
        if self.seconds is None or self.step_seconds is None:
            return ""
        return f"about {duration(max(1.0, self.seconds))}; a step takes {self.step_seconds:.2g} s, measured"

    def _few(self) -> str:
        """What the small splits cannot say."""
        few = {split: n for split in SPLITS[1:] if 0 < (n := self.rows.get(split, 0)) < JUDGES}
        if self.recipe.select == "last":
            few.pop("validation", None)
        if not few:
            return ""
        said = []
        if "test" in few:
            low, high = wilson(few["test"], few["test"])
            most = f"even if all are right, the 95 % interval is {low:.2f} to {high:.2f}"
            said.append(f"{few['test']} to test on say little: {most}")
        if "validation" in few:
            said.append(f"{few['validation']} choose a checkpoint almost by chance")
        every = self.rows["train"] + sum(self.rows[split] for split in self.held_out)
        return f"{'; '.join(said)}. --folds 5 judges on all {every} by cross-validation, and then trains on all"


def preview(
    backbone: Backbone,
    task: Task,
    init: SoftPrompt,
    recipe: Recipe | None = None,
    *,
    method: str | PromptMethod = "prompt_tuning",
    folds: int = 0,
    trial_steps: int = 0,
    measure: bool = True,
) -> Preview:
    """What `tpv.fit` with these arguments will do, and about how long it will take with the scoring of a test split.

    Args:
        folds: of a cross-validation before it.
        trial_steps: of a search for the rate before it.
        measure: take a few steps, and score a few rows, to estimate the time.

    Raises:
        TpvError: what `tpv.fit` raises.
    """
    recipe = recipe or Recipe()
    known = recipe.fitted(embedding_rms(backbone))
    if known.select != "last":
        task.examples("validation")  # refused where there are none
        check_selection(known.select, task)
    rows = {split: len(task.splits.get(split, ())) for split in SPLITS}
    train = task.examples("train")
    steps = known.total_steps(len(train))
    validations = 0 if known.select == "last" else -(-steps // known.eval_every)
    own = isinstance(task.spec.source, FileSource)
    held = tuple(split for split in SPLITS[1:] if own and rows[split] and f"{split} file" not in task.origin)
    step_seconds = seconds = None
    if measure:
        step_seconds, row_seconds = _measured(backbone, task, init, known, method)
        fold_steps = known.total_steps(len(train) - len(train) // folds) if folds else 0
        judged = (
            rows["validation"] * (validations + bool(task.labels)) + 2 * rows["test"] + (len(train) if folds else 0)
        )
        seconds = step_seconds * (steps + trial_steps + folds * fold_steps) + row_seconds * judged
    empty = render(task.spec.template, dict.fromkeys(task.spec.fields, ""))
    return Preview(
        rows,
        held,
        dict(Counter(row.target for row in train).most_common()) if task.labels else {},
        {split: _cut(backbone, task, split, known.max_input_length) for split in SPLITS if rows[split]},
        len(backbone.encode_sources([empty], ENDLESS, [task.spec.cue])[0]),
        known,
        recipe.lr == "auto",
        steps,
        validations,
        folds,
        step_seconds,
        seconds,
    )


def _cut(backbone: Backbone, task: Task, split: str, limit: int) -> Cut:
    rows = task.examples(split)[:COUNTED]
    tokens = backbone.encode_sources([row.source for row in rows], ENDLESS, [row.cue for row in rows])
    lengths = list(map(len, tokens))
    return Cut(sum(length > limit for length in lengths), len(rows), max(lengths))


def _measured(
    backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe, method: str | PromptMethod
) -> tuple[float, float]:
    """Seconds of a step, and of scoring a row; nothing that is trained here is kept."""
    ends: list[float] = []

    def note(progress: Progress) -> None:
        ends.append(progress.seconds)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial: dict[str, Any] = {"steps": MEASURED, "epochs": None, "select": "last"}
        fit(backbone, task, init, replace(recipe, **trial), method=method, callback=note)
        if not task.labels:  # text is generated, for as long as it is
            return median(b - a for a, b in pairwise(ends)), 0.0
        few = task.examples("train")[: recipe.batch_size]
        begun = time.perf_counter()
        evaluate(backbone, replace(task, splits={"test": few}), init, max_input_length=recipe.max_input_length)
        row = (time.perf_counter() - begun) / len(few)
    return median(b - a for a, b in pairwise(ends)), row
