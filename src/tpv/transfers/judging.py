"""Entrants fitted to all rows, and what each of them answers to rows that its race never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tpv.evaluation.encode import encode_examples
from tpv.evaluation.ensemble import Ensemble, Part, ProbePart, PromptPart, averaged, hidden_after
from tpv.outputs.label import Answers
from tpv.outputs.ranking import Calibrator, fit_calibrator, log_of
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Example
from tpv.transfers.members import LogProbs, Member, answers_of, fitted, trains
from tpv.transfers.problem import Problem
from tpv.transfers.racing import Standing

Key = tuple[str, int]  # of a member, and the steps that it is fitted with


def fitted_parts(problem: Problem, standing: Standing) -> tuple[SoftPrompt | Ensemble, Calibrator]:
    """An entrant fitted to all training rows, and a calibrator of its probabilities."""
    found, weights = _fitted(problem, [standing]), _weights(problem, standing)
    parts = tuple(found[key] for key in weights)
    own = _own_calibrator(parts)
    if len(parts) == 1 and isinstance(parts[0], PromptPart):
        return parts[0].prompt, own or _calibrator(problem, standing)
    shares = tuple(weights.values())
    ensemble = Ensemble(parts, None if len(set(shares)) == 1 else shares)
    return ensemble, own or _calibrator(problem, standing)


def judged(problem: Problem, standings: Sequence[Standing], rows: Sequence[Example]) -> list[Answers]:
    """What each entrant, fitted to all training rows, answers to other rows: the label that it finds likeliest.

    What entrants share is fitted once, and all prompts are asked in one bank.
    """
    parts = _fitted(problem, standings)
    said = _said(problem, parts, rows)
    answered = []
    for standing in standings:
        weights = _weights(problem, standing)
        # the calibrator of a single prompt is applied already, by `_said`
        own = _own_calibrator([parts[key] for key in weights])
        mine = [said[key] for key in weights]
        answers = averaged(mine, None if own else _calibrator(problem, standing), list(weights.values()))
        answered.append(replace(answers, greedy=torch.from_numpy(answers.ranked()[0])))
    return answered


def _fitted(problem: Problem, standings: Sequence[Standing]) -> dict[Key, Part]:
    """The parts of these entrants, fitted to all training rows; what they share is fitted once."""
    wanted: dict[int, dict[Key, Member]] = {}  # by steps
    known: set[Key] = set()
    for standing in (part for whole in standings for part in whole.parts or (whole,)):
        for member in standing.entrant.members:
            key = _key(problem, standing, member)
            if key not in known:
                known.add(key)
                wanted.setdefault(_steps(problem, standing), {})[key] = member
    parts: dict[Key, Part] = {}
    for steps, members in wanted.items():
        found = fitted(problem, list(members.values()), steps)
        parts |= {key: found[member.key] for key, member in members.items()}
    return parts


def _weights(problem: Problem, standing: Standing) -> dict[Key, float]:
    """The share of each part in an entrant's answer; they add up to 1."""
    found: dict[Key, float] = {}
    singles = standing.parts or (standing,)
    whole = sum(one.weight for one in singles) if standing.parts else 1.0
    for one in singles:
        share = (one.weight if standing.parts else 1.0) / whole / len(one.entrant.members)
        for member in one.entrant.members:
            key = _key(problem, one, member)
            found[key] = found.get(key, 0.0) + share
    return found


def _said(problem: Problem, parts: dict[Key, Part], rows: Sequence[Example]) -> dict[Key, LogProbs]:
    """Log-probabilities [N, C] that each part gives, calibrated where it has a calibrator of its own."""
    prompted = {key: part for key, part in parts.items() if isinstance(part, PromptPart)}
    asked = answers_of(problem, {key: part.prompt for key, part in prompted.items()}, rows)
    found: dict[Key, LogProbs] = {}
    for key, part in prompted.items():
        said = log_of(asked[key])
        found[key] = said if part.calibrator is None else log_of(part.calibrator.probabilities(said))
    sources = encode_examples(problem.backbone, rows, problem.recipe.max_input_length)
    for key, each in parts.items():
        if isinstance(each, ProbePart):
            found[key] = each.probe.log_probs(hidden_after(problem.backbone, each.prompt, sources))
    return found


def _steps(problem: Problem, standing: Standing) -> int:
    return problem.steps[standing.round - 1]


def _key(problem: Problem, standing: Standing, member: Member) -> Key:
    return member.key, _steps(problem, standing) if trains(member) else 0


def _own_calibrator(parts: Sequence[Part]) -> Calibrator | None:
    """That of a single prompt which was not trained."""
    return parts[0].calibrator if len(parts) == 1 and isinstance(parts[0], PromptPart) else None


def _calibrator(problem: Problem, standing: Standing) -> Calibrator:
    """Fitted to what the entrant said, in the race, to rows that it had not seen."""
    return fit_calibrator(problem.task.labels, standing.log_probs, problem.gold[problem.judged].tolist())
