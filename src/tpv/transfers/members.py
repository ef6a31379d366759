"""What candidates are made of: things that give each row the log-probabilities of its labels.

A member names itself by what decides its answers, so that candidates which share one pay for it once. What it takes
from the library it names by place in the ranking: each fold ranks the sources by the rows that it trains on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpv.errors import CutWarning
from tpv.evaluation.calibrate import calibrate
from tpv.evaluation.each import each_on_all, label_log_probs
from tpv.evaluation.ensemble import Part, ProbePart, PromptPart
from tpv.evaluation.probe import fit_probe
from tpv.outputs.ranking import Calibrator, fit_calibrator, log_of, softmax
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, matrices
from tpv.tasks import Example, Task
from tpv.training.coefficients import CoefficientReader, learn_coefficients
from tpv.training.fit import fit
from tpv.training.recipe import Recipe
from tpv.transfers.problem import Problem

LogProbs = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)


Start = SoftPrompt | Callable[[Sequence[str]], SoftPrompt]  # a prompt, or what makes one of the ranked sources' names


@dataclass(frozen=True, eq=False)
class FixedMember:
    """A prompt as it is. Its probabilities are calibrated on the training rows, which it never learned from."""

    key: str
    prompt: Start


@dataclass(frozen=True, eq=False)
class TunedMember:
    """A prompt tuned from a start."""

    key: str
    start: Start


@dataclass(frozen=True, eq=False)
class LearnedMember:
    """A sum of sources with learned coefficients on an initialization, which may be tuned on from there.

    Attributes:
        count: how many of the best sources.
        way: see `tpv.training.coefficients`.
        tuned: whether the prompt itself is then tuned.
    """

    key: str
    count: int
    way: Literal["gradient", "search"] = "gradient"
    per_token: bool = False
    tuned: bool = False


@dataclass(frozen=True, eq=False)
class ProbedMember:
    """Logistic regression on hidden states, read after the best source's prompt, or after none."""

    key: str
    after_best: bool = False

    def source(self, problem: Problem, places: Sequence[int]) -> str:
        """The source's name, by these training rows; empty without one."""
        return problem.ranked(places)[0].name if self.after_best else ""


Member = FixedMember | TunedMember | LearnedMember | ProbedMember


def trains(member: Member) -> bool:
    """Whether a member takes steps."""
    return isinstance(member, TunedMember | LearnedMember)


def of_length(recipe: Recipe, steps: int) -> Recipe:
    """A recipe of so many steps, the last of which is kept."""
    return replace(recipe, steps=steps, epochs=None, select="last", warmup_steps=max(1, steps // 10))


def prompts_of(
    problem: Problem, members: Sequence[Member], parts: Sequence[Sequence[int]], steps: int
) -> dict[str, list[SoftPrompt]]:
    """The prompt of every member that has one, for each part of the rows to train on; all trainings in banks.

    Args:
        parts: places in `problem.rows`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)  # what is truncated was said once, of all rows
        return _prompts_of(problem, members, parts, steps)


def _prompts_of(
    problem: Problem, members: Sequence[Member], parts: Sequence[Sequence[int]], steps: int
) -> dict[str, list[SoftPrompt]]:
    tasks = [problem.part_task(part) for part in parts]
    orders = [[one.name for one in problem.ranked(part)] for part in parts]
    recipe = of_length(problem.recipe, steps)
    found: dict[str, list[SoftPrompt]] = {}
    starts: list[tuple[str, int, SoftPrompt]] = []
    for member in members:
        if isinstance(member, FixedMember):
            found[member.key] = [_made(member.prompt, order) for order in orders]
        elif isinstance(member, TunedMember):
            starts += [(member.key, k, _made(member.start, order)) for k, order in enumerate(orders)]
        elif isinstance(member, LearnedMember):
            merged = _learned(problem, member, tasks, orders, recipe)
            if member.tuned:
                starts += [(member.key, k, prompt) for k, prompt in enumerate(merged)]
            else:
                found[member.key] = merged
    if starts:
        tuned = fit(
            problem.backbone,
            [tasks[k] for _, k, _ in starts],
            [prompt for _, _, prompt in starts],
            recipe,
            callback=problem.callback,
        )
        for (key, _, _), prompt in zip(starts, tuned, strict=True):
            found.setdefault(key, []).append(prompt)
    return found


def _made(start: Start, order: Sequence[str]) -> SoftPrompt:
    return start if isinstance(start, SoftPrompt) else start(order)


def _learned(
    problem: Problem, member: LearnedMember, tasks: Sequence[Task], orders: Sequence[Sequence[str]], recipe: Recipe
) -> list[SoftPrompt]:
    """The best sources with coefficients learned from each task's rows; tasks with the same sources in one bank."""
    groups: dict[frozenset[str], list[int]] = {}
    for k, order in enumerate(orders):
        groups.setdefault(frozenset(order[: member.count]), []).append(k)
    found: dict[int, SoftPrompt] = {}
    init = problem.init()
    for places in groups.values():
        vectors = [problem.vectors[name] for name in orders[places[0]][: member.count]]
        learned = learn_coefficients(
            problem.backbone,
            [tasks[k] for k in places],
            vectors,
            init,
            recipe,
            way=member.way,
            per_token=member.per_token,
            callback=problem.callback,
        )
        for k, weights in zip(places, learned, strict=True):
            found[k] = _merged(init, vectors, weights, problem.task.name)
    return [found[k] for k in range(len(tasks))]


def _merged(init: SoftPrompt, vectors: Sequence[TaskPromptVector], weights: Tensor, task: str) -> SoftPrompt:
    """An initialization with a weighted sum of vectors; one weight for each token is no sum of vectors any more."""
    if weights.ndim == 1:
        prompt = init
        for vector, weight in zip(vectors, weights.tolist(), strict=True):
            prompt = prompt + weight * vector
        return prompt
    return init.tuned_to(CoefficientReader(init.tensor, torch.stack(matrices(vectors)), weights).prompt(), task)


def cross_scores(problem: Problem, members: Sequence[Member], steps: int) -> dict[str, LogProbs]:
    """Log-probabilities [N, C] of the judged rows, `problem.judged`, each by what did not learn from it."""
    parts = [part.train for part in problem.parts]
    prompts = prompts_of(problem, [one for one in members if not isinstance(one, ProbedMember)], parts, steps)
    found = _asked(problem, {member.key: prompts[member.key] for member in members if trains(member)})
    fixed = {member.key: prompts[member.key] for member in members if isinstance(member, FixedMember)}
    found |= _calibrated(problem, fixed)
    for member in members:
        if isinstance(member, ProbedMember):
            judged = []
            for part in problem.parts:
                states, train = problem.states(member.source(problem, part.train)), list(part.train)
                probe = fit_probe(states[train], problem.gold[train].tolist(), len(problem.task.labels), problem.seed)
                judged.append(probe.log_probs(states[list(part.held)]))
            found[member.key] = np.concatenate(judged)
    return found


def _asked(problem: Problem, prompts: dict[str, list[SoftPrompt]]) -> dict[str, LogProbs]:
    """What each member's prompts say to the rows held out of their training, all in one bank; normalized."""
    found: dict[str, LogProbs] = {}
    for keys in by_length({key: mine[0] for key, mine in prompts.items()}):
        several = [prompt for key in keys for prompt in prompts[key]]
        reads, rows = [], []
        for number in range(len(keys)):
            for k, part in enumerate(problem.parts):
                reads += [number * len(problem.parts) + k] * len(part.held)
                rows += [problem.rows[i] for i in part.held]
        scores = label_log_probs(
            problem.backbone, problem.task, several, reads, rows, problem.recipe.max_input_length
        ).reshape(len(keys), len(problem.judged), -1)
        found |= {key: log_of(softmax(mine)) for key, mine in zip(keys, scores, strict=True)}
    return found


def _calibrated(problem: Problem, prompts: dict[str, list[SoftPrompt]]) -> dict[str, LogProbs]:
    """What prompts that are not trained say to the judged rows, each fold's calibrated on its other rows."""
    several = {prompt.digest: prompt for mine in prompts.values() for prompt in mine}
    said = answers_of(problem, several, problem.rows)
    found = {}
    for key, mine in prompts.items():
        judged = []
        for part, prompt in zip(problem.parts, mine, strict=True):
            scores, train = log_of(said[prompt.digest]), list(part.train)
            fitted = fit_calibrator(problem.task.labels, scores[train], problem.gold[train].tolist())
            judged.append(log_of(fitted.probabilities(scores[list(part.held)])))
        found[key] = np.concatenate(judged)
    return found


def answers_of(
    problem: Problem, prompts: Mapping[Key, SoftPrompt], rows: Sequence[Example]
) -> dict[Key, NDArray[np.float64]]:
    """What each prompt says to the same rows, as probabilities [N, C]; those of one length in one bank."""
    found: dict[Key, NDArray[np.float64]] = {}
    length = problem.recipe.max_input_length
    for keys in by_length(prompts):
        bank = [prompts[key] for key in keys]
        found |= zip(keys, each_on_all(problem.backbone, problem.task, bank, rows, length), strict=True)
    return found


def by_length(prompts: Mapping[Key, SoftPrompt]) -> list[list[Key]]:
    """Keys of prompts that fit into one bank, which has one length."""
    lengths = dict.fromkeys(prompt.num_tokens for prompt in prompts.values())
    return [[key for key, prompt in prompts.items() if prompt.num_tokens == length] for length in lengths]


def fitted(problem: Problem, members: Sequence[Member], steps: int) -> dict[str, Part]:
    """Members fitted to all training rows, by key."""
    every = list(range(len(problem.task.examples("train"))))
    gold = problem.gold[every].tolist()
    prompts = prompts_of(problem, [one for one in members if not isinstance(one, ProbedMember)], [every], steps)
    parts: dict[str, Part] = {}
    for member in members:
        if isinstance(member, ProbedMember):
            source = member.source(problem, every)
            probe = fit_probe(problem.states(source)[every], gold, len(problem.task.labels), problem.seed)
            start = problem.start(problem.vectors[source]) if source else None
            parts[member.key] = ProbePart(probe, start)
            continue
        (prompt,) = prompts[member.key]
        fixed = isinstance(member, FixedMember)
        parts[member.key] = PromptPart(prompt, calibrated_on_training(problem, prompt) if fixed else None)
    return parts


def calibrated_on_training(problem: Problem, prompt: SoftPrompt) -> Calibrator:
    """A calibrator of a prompt that was not trained, on the training rows."""
    length = problem.recipe.max_input_length
    return calibrate(problem.backbone, problem.task, prompt, split="train", max_input_length=length)
