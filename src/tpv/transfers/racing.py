"""The race: candidates by cross-validation, in rounds of more and more steps; the worse half drops out of each."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpv.errors import TpvError
from tpv.files import atomic_write
from tpv.outputs.ranking import gold_losses, log_mean, log_of, softmax
from tpv.outputs.scores import wilson
from tpv.transfers.candidates import Entrant
from tpv.transfers.members import LogProbs, Member, cross_scores, trains
from tpv.transfers.problem import Problem

LEAST = 8  # rows at which a learning curve begins
DRAWS = 1000  # of the Bayesian bootstrap that weights entrants
SHARE = 0.5  # of a log-likelihood that counts in a weight: best of 0.25, 0.5, 1 and 2 on tasks held out of a library
LEAST_WEIGHT = 0.1  # an entrant with less is left out of the average


@dataclass(frozen=True, eq=False)
class Standing:
    """How an entrant did in the round that suited it best.

    Attributes:
        accuracy, low, high: share of the judged rows that it labels right, with Wilson's 95 % interval.
        log_loss: of the judged rows, nats, after its temperature is fitted to them.
        seconds: of its share of the trainings, and of scoring.
        losses, log_probs: of the judged rows, [N] and [N, C].
        steps: of its trainings; 0 where nothing was trained.
        weight: of the entrant among all, see `weights`; 1 for the average itself.
        parts: of an average, what it averages.
    """

    entrant: Entrant
    round: int
    steps: int
    folds: int
    accuracy: float
    low: float
    high: float
    log_loss: float
    seconds: float
    losses: NDArray[np.float64]
    log_probs: LogProbs
    weight: float = 0.0
    parts: tuple[Standing, ...] = ()

    def row(self) -> dict[str, Any]:
        """It as a row of a table.

        Columns:
            entrant: what competed.
            candidate: the registered candidate that it comes from.
            round: the round that suited it best.
            steps: steps of its trainings; 0 where nothing was trained.
            folds: folds of the cross-validation; 1 where a validation split judged.
            accuracy: accuracy on rows that it did not learn from.
            low, high: Wilson's 95 % interval of the accuracy.
            log_loss: mean negative log-probability of the gold label, nats.
            seconds: time that it took.
            weight: its share in the average of all entrants.
            chosen: whether it won.
        """
        return {
            "entrant": self.entrant.name,
            "candidate": self.entrant.candidate,
            "round": self.round,
            "steps": self.steps,
            "folds": self.folds,
            "accuracy": self.accuracy,
            "low": self.low,
            "high": self.high,
            "log_loss": self.log_loss,
            "seconds": self.seconds,
            "weight": self.weight,
        }


Tell = Callable[[str, Sequence[Standing]], object]


def race(problem: Problem, entrants: Sequence[Entrant], work: Path | None, tell: Tell) -> list[Standing]:
    """The standing of every entrant, the winner first: the average of all, by weight, unless one has all the weight.

    Args:
        work: a folder for what each round found, so that an interrupted race resumes.
        tell: called with what is being done, and the standings so far.
    """
    latest: dict[str, Standing] = {}  # of the round that suited each best: more steps may fit few rows too well
    running = list(entrants)
    for number, steps in enumerate(problem.steps):
        last = number == len(problem.steps) - 1
        members = _distinct(running, known=latest)
        scores: dict[str, LogProbs] = {}
        seconds: dict[str, float] = {}
        for group in _groups(members):
            what = f"round {number + 1} of {len(problem.steps)}: {_told(group, steps)}"
            tell(what, _sorted(latest.values()))
            found, spent = _kept(problem, group, steps, work)
            scores |= found
            seconds |= dict.fromkeys(found, spent / len(group))
        now: dict[str, Standing] = {}
        for entrant in running:
            if all(member.key in scores for member in entrant.members):
                mine = log_mean([scores[member.key] for member in entrant.members])
                cost = sum(seconds[member.key] for member in entrant.members)
                now[entrant.name] = _standing(problem, entrant, mine, number + 1, steps, cost)
        latest |= {name: _sorted([one, latest.get(name, one)])[0] for name, one in now.items()}
        if not last:
            racing = _sorted(now[entrant.name] for entrant in running if any(map(trains, entrant.members)))
            running = [one.entrant for one in racing[: math.ceil(len(racing) / 2)]]
    ranked = _weighted(problem, _sorted(latest.values()))
    tell("done", ranked)
    return ranked


def weights(losses: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """How likely each entrant is to be the best for new rows: pseudo-BMA+ (Yao et al., 2018, Bayesian Analysis 13:3).

    The log-likelihood of the judged rows is drawn anew by the Bayesian bootstrap; a weight is the average of softmax
    over the entrants, so that few rows spread it and many concentrate it.

    Args:
        losses: [E, N] of each entrant for each judged row, nats.

    Returns:
        [E], adding up to 1.
    """
    rows = losses.shape[1]
    draws = np.random.default_rng(seed).dirichlet(np.ones(rows), size=DRAWS)
    return np.asarray(softmax(-SHARE * rows * (draws @ losses.T)).mean(0))


def _weighted(problem: Problem, ranked: Sequence[Standing]) -> list[Standing]:
    """The standings with their weights; first their average, or the one that has all the weight."""
    found = weights(np.stack([one.losses for one in ranked]), problem.seed)
    weighed = [replace(one, weight=float(weight)) for one, weight in zip(ranked, found, strict=True)]
    heaviest = sorted(weighed, key=lambda one: -one.weight)
    parts = [one for one in heaviest if one.weight >= LEAST_WEIGHT] or heaviest[:1]
    if len(parts) == 1:
        return [parts[0], *(one for one in weighed if one is not parts[0])]
    return [_average(problem, parts), *weighed]


def learning_curve(problem: Problem, standing: Standing) -> list[dict[str, Any]]:
    """How an entrant does with fewer rows: trained on 8, 16, 32 … of those it trained on in each fold.

    Returns:
        A row for each size: `rows`, `accuracy`, `low`, `high`, `log_loss`; the last of all rows of a fold. Nothing
        where that would be the only one.
    """
    most = min(len(part.train) for part in problem.parts)
    least = max(LEAST, 2 * len(problem.task.labels))
    sizes = [size for size in (least * 2**k for k in range(20)) if size <= most / 2]
    found = []
    for size in sizes:
        fewer = replace(problem, part_rows=size)
        parts = [_with_fewer(fewer, one, size) for one in standing.parts or (standing,)]
        found.append((size, _average(fewer, parts) if standing.parts else parts[0]))
    points = [*found, (most, standing)] if found else []
    kept = ("accuracy", "low", "high", "log_loss")
    return [{"rows": size, **{name: getattr(one, name) for name in kept}} for size, one in points]


def _with_fewer(fewer: Problem, standing: Standing, size: int) -> Standing:
    """The standing of the same entrant with so many rows of each fold."""
    steps = fewer.level.steps(size)[standing.round - 1]
    scores = cross_scores(fewer, standing.entrant.members, steps)
    mine = log_mean([scores[member.key] for member in standing.entrant.members])
    found = _standing(fewer, standing.entrant, mine, standing.round, steps, 0.0)
    return replace(found, weight=standing.weight)


def _average(problem: Problem, parts: Sequence[Standing]) -> Standing:
    """The average of these entrants' probabilities, by weight."""
    members = tuple({member.key: member for one in parts for member in one.entrant.members}.values())
    average = _standing(
        problem,
        Entrant(f"average of {len(parts)}", members, "average"),
        log_mean([one.log_probs for one in parts], [one.weight for one in parts]),
        max(one.round for one in parts),
        max(one.steps for one in parts),
        sum(one.seconds for one in parts),
    )
    return replace(average, weight=1.0, parts=tuple(parts))


def _standing(
    problem: Problem, entrant: Entrant, log_probs: LogProbs, number: int, steps: int, seconds: float
) -> Standing:
    gold = problem.gold[problem.judged]
    tempered = tempered_log_probs(log_probs, gold)
    losses = -tempered[np.arange(len(gold)), gold]
    hits = int((log_probs.argmax(1) == gold).sum())
    low, high = wilson(hits, len(gold))
    return Standing(
        entrant,
        number,
        steps if any(map(trains, entrant.members)) else 0,
        len(problem.parts),
        hits / len(gold),
        low,
        high,
        float(losses.mean()),
        seconds,
        losses,
        log_probs,
    )


def tempered_log_probs(log_probs: LogProbs, gold: NDArray[np.int64]) -> LogProbs:
    """Log-probabilities at the one temperature under which the gold labels are likeliest; kept near 1."""
    from scipy.optimize import minimize_scalar

    def cost(log_temperature: float) -> float:
        probabilities = softmax(log_probs / math.exp(log_temperature))
        return float(gold_losses(probabilities, gold).sum() + log_temperature**2 / 2)

    found = minimize_scalar(cost, bounds=(-3.0, 3.0), method="bounded").x
    return log_of(softmax(log_probs / math.exp(found)))


def _sorted(standings: Iterable[Standing]) -> list[Standing]:
    """The lowest log loss first; of equal ones, what trains nothing, then by name."""
    return sorted(standings, key=lambda one: (one.log_loss, one.steps, one.entrant.name))


def _distinct(entrants: Sequence[Entrant], known: dict[str, Standing]) -> list[Member]:
    """The members of these entrants, each once; what takes no steps and is known is left out."""
    members = {member.key: member for entrant in entrants for member in entrant.members}
    settled = {member.key for one in known.values() for member in one.entrant.members if not trains(member)}
    return [member for key, member in members.items() if key not in settled]


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """Those that take no steps, then those that do."""
    return [group for trained in (False, True) if (group := [one for one in members if trains(one) is trained])]


def _told(group: Sequence[Member], steps: int) -> str:
    return (
        f"{len(group)} prompt{'s' * (len(group) != 1)}, {steps} steps a fold"
        if trains(group[0])
        else f"{len(group)} without training"
    )


def _kept(
    problem: Problem, members: Sequence[Member], steps: int, work: Path | None
) -> tuple[dict[str, LogProbs], float]:
    """`cross_scores`, from the work folder where they are there, and the seconds that they took."""

    def scored() -> tuple[dict[str, LogProbs], float]:
        begun = time.perf_counter()
        return cross_scores(problem, members, steps), time.perf_counter() - begun

    if work is None:
        return scored()
    about = json.dumps([problem.digest, steps, [member.key for member in members]])
    path = work / f"{hashlib.sha256(about.encode()).hexdigest()[:20]}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {member.key: stored[str(k)] for k, member in enumerate(members)}, float(stored["seconds"])
        except (KeyError, ValueError, OSError, EOFError):
            pass  # damaged: done again
    found, spent = scored()
    arrays = {str(k): found[member.key] for k, member in enumerate(members)}
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, seconds=np.array(spent), **arrays)
    return found, spent


def check_rows(problem: Problem) -> None:
    """Refuse rows that cannot be judged.

    Raises:
        TpvError: a label without rows, fewer than two of a label, or more folds than rows.
    """
    task = problem.task
    counts = dict.fromkeys(task.labels, 0)
    for row in task.examples("train"):
        counts[row.target] += 1
    missing = [word for word, count in counts.items() if not count]
    if missing:
        raise TpvError(
            f"labels of task {task.name!r} without a training row",
            expected="at least two rows of each label",
            got=", ".join(missing[:5]),
            fix="add rows, or leave the label out",
        )
    few = {word: count for word, count in counts.items() if count < 2}
    if few and not task.splits.get("validation"):
        raise TpvError(
            f"training rows of task {task.name!r}",
            expected="at least two of each label, one to learn from and one to judge by",
            got=", ".join(f"{count} of {word!r}" for word, count in list(few.items())[:5]),
            fix="add rows, or leave the label out",
        )
