"""What candidates compete on: labelled rows, a library of vectors, and the folds that judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tpv.evaluation.each import each_on_all
from tpv.evaluation.encode import encode_examples
from tpv.evaluation.ensemble import hidden_after
from tpv.models import Backbone
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.embeddings import embedding_rms
from tpv.prompts.homes import home_of
from tpv.tasks import Example, Task
from tpv.tasks.task import stratified_folds, stratified_sample
from tpv.training.recipe import BATCH, TRAIN_ROW, Recipe, few_steps
from tpv.transfers.ranking import Ranked, ranked


@dataclass(frozen=True)
class Level:
    """How much work a race is.

    Attributes:
        sources: how many of the best sources enter.
        folds: of cross-validation, where there is no validation split.
        rounds: steps of each round, as multiples of `tpv.training.recipe.few_steps`; after each but the last, the worse
            half of what trains drops out.
        trained: about how many prompts train in the first round, for estimates; half as many in each next one.
    """

    name: str
    sources: int
    folds: int
    rounds: tuple[float, ...]
    trained: int = 2

    def steps(self, rows: int) -> tuple[int, ...]:
        """Steps of each round, with so many rows to train on."""
        return tuple(max(1, round(times * few_steps(rows))) for times in self.rounds)

    def trainings(self, rows: int) -> int:
        """About how many steps of a prompt it takes, those of the winner's fit to all rows included."""
        steps = self.steps(rows)
        raced = sum((self.trained * each >> number) for number, each in enumerate(steps))
        return self.folds * raced + steps[-1]

    def scored(self, rows: int, vectors: int) -> int:
        """About how many rows it scores: under every source, what is not trained, probes, and each round's prompts."""
        return rows * (vectors + 2 * self.trained + self.sources + 6)


LEVELS = {
    "quick": Level("quick", sources=1, folds=3, rounds=(1,), trained=2),
    "standard": Level("standard", sources=3, folds=4, rounds=(1, 2), trained=6),
    "thorough": Level("thorough", sources=4, folds=5, rounds=(1, 2, 4), trained=11),
}


def expected_seconds(level: Level, rows: int, vectors: int, pace: float) -> float:
    """About how long a race takes.

    Args:
        rows: labelled ones.
        vectors: in the library.
        pace: seconds that it takes to score one row.
    """
    return pace * (TRAIN_ROW * level.trainings(rows) * min(BATCH, rows) + level.scored(rows, vectors))


class Fold(NamedTuple):
    """Places in `Problem.rows` to train on, and to judge."""

    train: tuple[int, ...]
    held: tuple[int, ...]


@dataclass
class Problem:
    """Few labelled rows, and what there is to begin from.

    Attributes:
        backbone: the frozen model.
        task: its training rows are the labelled ones; a validation split, where there is one, judges instead of folds.
        vectors: the library, by name.
        recipe: how prompts are trained; its steps are those of the last round.
        num_tokens: P of all prompts.
        seed: of the initializations and the folds.
        level: how much work.
        folds: how many, where there is no validation split.
        callback: called with the progress of every training.
        part_rows: train on so many of a fold's rows only; None for all.
    """

    backbone: Backbone
    task: Task
    vectors: Mapping[str, TaskPromptVector]
    recipe: Recipe
    num_tokens: int
    seed: int
    level: Level
    folds: int
    callback: Callback
    part_rows: int | None = None
    _states: dict[str, Tensor] = field(default_factory=dict)
    _said: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """A hash of all that decides what is found here."""
        library = [[name, vector.digest] for name, vector in self.vectors.items()]
        recipe = asdict(self.recipe.fitted(embedding_rms(self.backbone)))
        about: list[object] = [self.backbone.identity.model_dump(mode="json"), self.task.fingerprint, library, recipe]
        about += [self.num_tokens, self.seed, asdict(self.level), self.folds]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    @cached_property
    def rows(self) -> tuple[Example, ...]:
        """All labelled rows: those to train on, then those of a validation split."""
        return (*self.task.examples("train"), *self.task.splits.get("validation", ()))

    @cached_property
    def gold(self) -> NDArray[np.int64]:
        """The label id of each row."""
        return np.array([row.label for row in self.rows])

    @cached_property
    def parts(self) -> list[Fold]:
        """Stratified folds of the training rows; or one, judged by the validation split."""
        count = len(self.task.examples("train"))
        if count < len(self.rows):
            return [Fold(self._some(range(count)), tuple(range(count, len(self.rows))))]
        place = stratified_folds([row.label for row in self.rows], self.folds, Random(f"transfer folds {self.seed}"))
        return [
            Fold(
                self._some([i for i in range(count) if place[i] != k]), tuple(i for i in range(count) if place[i] == k)
            )
            for k in range(self.folds)
        ]

    def _some(self, places: Sequence[int]) -> tuple[int, ...]:
        """These rows, or `part_rows` of them with their label distribution."""
        if self.part_rows is None:
            return tuple(places)
        drawn = stratified_sample(
            self.gold[list(places)].tolist(), self.part_rows, Random(f"transfer part {self.seed}")
        )
        return tuple(places[i] for i in sorted(drawn))

    @property
    def steps(self) -> tuple[int, ...]:
        """Of each round."""
        return self.level.steps(len(self.task.examples("train")))

    @property
    def judged(self) -> list[int]:
        """The rows that are judged, fold after fold."""
        return [i for part in self.parts for i in part.held]

    def part_task(self, places: Sequence[int]) -> Task:
        """The task with these rows alone to train on."""
        return replace(self.task, splits={"train": tuple(self.rows[i] for i in places)})

    def init(self, number: int = 0) -> SoftPrompt:
        """A random initialization: the first, the second and so on of this problem."""
        return SoftPrompt.sample(self.backbone, self.num_tokens, seed=1000 * self.seed + number)

    def start(self, vector: TaskPromptVector) -> SoftPrompt:
        """The prompt that a vector makes: on the initialization that it was trained from, if that can be drawn again.

        A portable or composable vector was trained for any, and gets the problem's first one.
        """
        return (home_of(self.backbone, vector) or self.init()) + vector

    @cached_property
    def ranking(self) -> list[Ranked]:
        """The sources, best first, by the likelihood of all training rows."""
        return self.ranked(range(len(self.task.examples("train"))))

    def ranked(self, places: Sequence[int]) -> list[Ranked]:
        """The sources, best first, by the likelihood of some training rows alone.

        A fold chooses its sources by the rows that it trains on, so that what is judged was not chosen by the judge.
        """
        if self.vectors and not self._said:  # probabilities [N, C] that each source gives to the training rows
            prompts, rows = [self.start(vector) for vector in self.vectors.values()], self.task.examples("train")
            said = each_on_all(self.backbone, self.task, prompts, rows, self.recipe.max_input_length)
            self._said.update(zip(self.vectors, said, strict=True))
        mine = list(places)
        return ranked({name: said[mine] for name, said in self._said.items()}, self.gold[mine])

    def best(self, count: int) -> list[str]:
        """Names of the best sources."""
        return [one.name for one in self.ranking[:count]]

    def states(self, name: str) -> Tensor:
        """Hidden states [N, D, 2, H] of all rows, read after a source's prompt, or after none for an empty name."""
        if name not in self._states:
            sources = encode_examples(self.backbone, self.rows, self.recipe.max_input_length)
            self._states[name] = hidden_after(self.backbone, self.start(self.vectors[name]) if name else None, sources)
        return self._states[name]
