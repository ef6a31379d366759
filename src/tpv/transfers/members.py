"""What candidates are made of: things that give each row the log-probabilities of its labels.

A member names itself by what decides its answers, so that candidates which share one pay for it once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpv.errors import CutWarning
from tpv.evaluation.calibrate import calibrate
from tpv.evaluation.each import label_log_probs
from tpv.evaluation.ensemble import Part, ProbePart, PromptPart
from tpv.evaluation.probe import fit_probe
from tpv.outputs.ranking import Calibrator, fit_calibrator, log_of, softmax
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, matrices
from tpv.training.coefficients import CoefficientReader, learn_coefficients
from tpv.training.fit import fit
from tpv.training.recipe import Recipe
from tpv.transfers.problem import Problem

LogProbs = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FixedMember:
    """A prompt as it is. Its probabilities are calibrated on the training rows, which it never learned from."""

    key: str
    prompt: SoftPrompt


@dataclass(frozen=True, eq=False)
class TunedMember:
    """A prompt tuned from a start."""

    key: str
    start: SoftPrompt


@dataclass(frozen=True, eq=False)
class LearnedMember:
    """A sum of sources with learned coefficients on an initialization, which may be tuned on from there.

    Attributes:
        sources: names in the library.
        way: see `tpv.training.coefficients`.
        tuned: whether the prompt itself is then tuned.
    """

    key: str
    sources: tuple[str, ...]
    way: Literal["gradient", "search"] = "gradient"
    per_token: bool = False
    tuned: bool = False


@dataclass(frozen=True, eq=False)
class ProbedMember:
    """Logistic regression on hidden states, read after a source's prompt, or after none for an empty name."""

    key: str
    source: str = ""


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
    recipe = of_length(problem.recipe, steps)
    found: dict[str, list[SoftPrompt]] = {}
    starts: list[tuple[str, int, SoftPrompt]] = []
    for member in members:
        if isinstance(member, FixedMember):
            found[member.key] = [member.prompt] * len(parts)
        elif isinstance(member, TunedMember):
            starts += [(member.key, k, member.start) for k in range(len(parts))]
        elif isinstance(member, LearnedMember):
            vectors = [problem.vectors[name] for name in member.sources]
            init = problem.init()
            learned = learn_coefficients(
                problem.backbone,
                tasks,
                vectors,
                init,
                recipe,
                way=member.way,
                per_token=member.per_token,
                callback=problem.callback,
            )
            merged = [_merged(init, vectors, weights, problem.task.name) for weights in learned]
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
    with_prompts = [member for member in members if not isinstance(member, ProbedMember)]
    prompts = prompts_of(problem, with_prompts, [part.train for part in problem.parts], steps)
    found = _asked(problem, {key: prompts[key] for key in prompts})
    for member in members:
        if isinstance(member, FixedMember):
            found[member.key] = _calibrated(problem, member, found[member.key])
        elif isinstance(member, ProbedMember):
            states = problem.states(member.source)
            judged = []
            for part in problem.parts:
                gold = problem.gold[list(part.train)].tolist()
                probe = fit_probe(states[list(part.train)], gold, len(problem.task.labels), problem.seed)
                judged.append(probe.log_probs(states[list(part.held)]))
            found[member.key] = np.concatenate(judged)
    return found


def _asked(problem: Problem, prompts: dict[str, list[SoftPrompt]]) -> dict[str, LogProbs]:
    """What each member's prompts say to the rows held out of their training, all in one bank; normalized."""
    found: dict[str, LogProbs] = {}
    for length in dict.fromkeys(mine[0].num_tokens for mine in prompts.values()):
        keys = [key for key, mine in prompts.items() if mine[0].num_tokens == length]  # a bank has one length
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


def _calibrated(problem: Problem, member: FixedMember, scores: LogProbs) -> LogProbs:
    """A fixed prompt's log-probabilities, each fold's calibrated on the rows of the others."""
    labels = problem.task.labels
    if len(problem.parts) == 1:  # judged by a validation split: the training rows have to be asked
        return log_of(calibrated_on_training(problem, member.prompt).probabilities(scores))
    place = {row: number for number, row in enumerate(problem.judged)}
    found = np.empty_like(scores)
    for part in problem.parts:
        known, judged = [place[i] for i in part.train], [place[i] for i in part.held]
        fitted = fit_calibrator(labels, scores[known], problem.gold[list(part.train)].tolist())
        found[judged] = log_of(fitted.probabilities(scores[judged]))
    return found


def fitted(problem: Problem, members: Sequence[Member], steps: int) -> dict[str, Part]:
    """Members fitted to all training rows, by key."""
    every = list(range(len(problem.task.examples("train"))))
    gold = problem.gold[every].tolist()
    prompts = prompts_of(problem, [one for one in members if not isinstance(one, ProbedMember)], [every], steps)
    parts: dict[str, Part] = {}
    for member in members:
        if isinstance(member, ProbedMember):
            probe = fit_probe(problem.states(member.source)[every], gold, len(problem.task.labels), problem.seed)
            start = problem.start(problem.vectors[member.source]) if member.source else None
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
