"""Entrants fitted to all rows, and what each of them answers to rows that its race never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tpv.evaluation.each import each_on_all
from tpv.evaluation.encode import encode_examples
from tpv.evaluation.ensemble import Ensemble, Part, ProbePart, PromptPart, averaged, hidden_after
from tpv.outputs.label import Answers
from tpv.outputs.ranking import Calibrator, fit_calibrator, log_of
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Example
from tpv.transfers.members import LogProbs, Member, fitted, trains
from tpv.transfers.problem import Problem
from tpv.transfers.racing import Standing

Parts = dict[tuple[str, int], Part]  # by member and steps


def fitted_parts(problem: Problem, standing: Standing) -> tuple[SoftPrompt | Ensemble, Calibrator]:
    """An entrant fitted to all training rows, and a calibrator of its probabilities."""
    found = fitted(problem, standing.entrant.members, _steps(problem, standing))
    parts = tuple(found.values())
    own = _own_calibrator(parts)
    answerer = parts[0].prompt if len(parts) == 1 and isinstance(parts[0], PromptPart) else Ensemble(parts)
    return answerer, own or _calibrator(problem, standing)


def judged(problem: Problem, standings: Sequence[Standing], rows: Sequence[Example]) -> list[Answers]:
    """What each entrant, fitted to all training rows, answers to other rows: the label that it finds likeliest.

    What entrants share is fitted once, and all prompts are asked in one bank.
    """
    wanted: dict[int, dict[tuple[str, int], Member]] = {}  # by the steps that they are fitted with
    known: set[tuple[str, int]] = set()
    for standing in standings:
        for member in standing.entrant.members:
            key = _key(problem, standing, member)
            if key not in known:
                known.add(key)
                wanted.setdefault(_steps(problem, standing), {})[key] = member
    parts: Parts = {}
    for steps, members in wanted.items():
        found = fitted(problem, list(members.values()), steps)
        parts |= {key: found[member.key] for key, member in members.items()}
    said = _said(problem, parts, rows)
    answered = []
    for standing in standings:
        keys = [_key(problem, standing, member) for member in standing.entrant.members]
        # the calibrator of a single prompt is applied already, by `_said`
        own = _own_calibrator([parts[key] for key in keys])
        answers = averaged([said[key] for key in keys], None if own else _calibrator(problem, standing))
        answered.append(replace(answers, greedy=torch.from_numpy(answers.ranked()[0])))
    return answered


def _said(problem: Problem, parts: Parts, rows: Sequence[Example]) -> dict[tuple[str, int], LogProbs]:
    """Log-probabilities [N, C] that each part gives, calibrated where it has a calibrator of its own."""
    length = problem.recipe.max_input_length
    prompted = {key: part for key, part in parts.items() if isinstance(part, PromptPart)}
    found: dict[tuple[str, int], LogProbs] = {}
    for tokens in {part.prompt.num_tokens for part in prompted.values()}:  # a bank has one length
        mine = {key: part for key, part in prompted.items() if part.prompt.num_tokens == tokens}
        prompts = [part.prompt for part in mine.values()]
        for (key, own), each in zip(
            mine.items(), each_on_all(problem.backbone, problem.task, prompts, rows, length), strict=True
        ):
            found[key] = log_of(each if own.calibrator is None else own.calibrator.probabilities(log_of(each)))
    sources = encode_examples(problem.backbone, rows, length)
    for key, part in parts.items():
        if isinstance(part, ProbePart):
            found[key] = part.probe.log_probs(hidden_after(problem.backbone, part.prompt, sources))
    return found


def _steps(problem: Problem, standing: Standing) -> int:
    return problem.steps[standing.round - 1]


def _key(problem: Problem, standing: Standing, member: Member) -> tuple[str, int]:
    return member.key, _steps(problem, standing) if trains(member) else 0


def _own_calibrator(parts: Sequence[Part]) -> Calibrator | None:
    """That of a single prompt which was not trained."""
    return parts[0].calibrator if len(parts) == 1 and isinstance(parts[0], PromptPart) else None


def _calibrator(problem: Problem, standing: Standing) -> Calibrator:
    """Fitted to what the entrant said, in the race, to rows that it had not seen."""
    return fit_calibrator(problem.task.labels, standing.log_probs, problem.gold[problem.judged].tolist())
