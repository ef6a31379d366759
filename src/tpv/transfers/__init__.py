"""From a few labelled rows and a library of vectors to the best start, chosen by cross-validation."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tpv.errors import TpvError, TpvWarning
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.each import each_on_all
from tpv.evaluation.encode import encode_examples
from tpv.models import Backbone
from tpv.progress import Callback, duration, silent
from tpv.prompts import initializers
from tpv.prompts.algebra import TaskPromptVector
from tpv.prompts.library import Library
from tpv.registry import register
from tpv.tasks import Task
from tpv.tasks.splits import JUDGES
from tpv.training.recipe import BATCH, Recipe
from tpv.transfers.candidates import Entrant
from tpv.transfers.judging import fitted_parts
from tpv.transfers.members import trains
from tpv.transfers.problem import LEVELS, Level, Problem, expected_seconds
from tpv.transfers.racing import Standing, Tell, check_rows, learning_curve, race
from tpv.transfers.result import TransferResult, best_prompt, curve_table, source_table

__all__ = ["Problem", "problem_of", "transfer"]

LibraryLike = Mapping[str, TaskPromptVector] | Sequence[TaskPromptVector] | str | PathLike[str] | None
TOKENS = 20  # P where there is no library
CAME_TO = "level.txt"  # in the work folder of a race: the level that a budget of seconds came to


def transfer(
    backbone: Backbone,
    task: Task,
    library: LibraryLike = None,
    *,
    shots: int | None = None,
    budget: str | float = "standard",
    candidates: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    num_tokens: int | None = None,
    lr: float | None = None,
    max_input_length: int = MAX_INPUT_LENGTH,
    work: str | Path | None = None,
    tell: Tell | None = None,
    callback: Callback | None = None,
) -> TransferResult:
    """The best classifier that a few labelled rows and a library of vectors give, and what it was chosen from.

    Sources are ranked by the likelihood of the rows under each. Candidates then race by stratified cross-validation on
    the training rows, in rounds of more steps. Each gets a weight: how likely it is to be the best for new rows. The
    answer is their weighted average, or the one that has all the weight, fitted to all rows. A validation split of 50
    rows or more judges instead of folds, a smaller one joins the training rows. The test split is never read. Load a
    few rows of your own with `tpv.load_task(..., hold_out=False)`, so that none is put aside.

    Args:
        task: its training rows are the labelled ones.
        library: a `tpv.Library`, a mapping by name, or a list of vectors; None goes without. Vectors of another
            model, or of another number of tokens than most have, are left out; a warning counts them.
        shots: draw this many of the training rows, class distribution kept, and leave the others and the validation
            split alone.
        budget: `quick` (one round), `standard` or `thorough`; or seconds: the most thorough of them that is expected
            to take no longer on this machine, `quick` where none is. What it came to is told, and decides the result
            as its name would.
        candidates: names of registered candidates, or their parameters by name; by default those of the budget.
        seed: of initializations, folds, data order and the draw of shots.
        num_tokens: P, where there is no library.
        lr: peak learning rate of tuned prompts; by default it fits the model, see `tpv.Recipe`.
        max_input_length: texts are truncated to this many tokens.
        work: a folder for what each round finds, so that the same call resumes after an interrupt.
        tell: called with what is being done and the standings so far.
        callback: called with the `Progress` of every training.

    Raises:
        TpvError: no training rows, a label with fewer than two, an empty library or one of another model, an unknown
            budget or candidate, a text task.
    """
    folder = None if work is None else Path(work)
    problem, entrants = problem_of(
        backbone,
        task,
        library,
        shots=shots,
        budget=_begun(folder, budget),
        candidates=candidates,
        seed=seed,
        num_tokens=num_tokens,
        lr=lr,
        max_input_length=max_input_length,
        tell=tell,
        callback=callback,
    )
    said = tell or (lambda *_: None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CAME_TO).write_text(problem.level.name)
    standings = race(problem, entrants, folder, said)
    return _result(problem, standings, said)


def _begun(folder: Path | None, budget: str | float) -> str | float:
    """The budget; or, where a race of so many seconds was interrupted, what that came to."""
    note = None if folder is None or isinstance(budget, str) else folder / CAME_TO
    level = note.read_text() if note is not None and note.is_file() else ""
    return level if level in LEVELS else budget


def problem_of(
    backbone: Backbone,
    task: Task,
    library: LibraryLike = None,
    *,
    shots: int | None = None,
    budget: str | float = "standard",
    candidates: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    num_tokens: int | None = None,
    lr: float | None = None,
    max_input_length: int = MAX_INPUT_LENGTH,
    tell: Tell | None = None,
    callback: Callback | None = None,
) -> tuple[Problem, list[Entrant]]:
    """What `transfer` races on, its sources ranked, and what enters; see there for arguments and errors."""
    _check(backbone, task, budget)
    _wanted(candidates, "quick")  # refuses unknown ones before anything is loaded
    own = _judged_by_enough(task)
    if shots is not None:  # a few rows are all there is: other labelled ones judge nothing
        own = own.few_shot(shots, seed)
        own = replace(own, splits={"train": own.examples("train")})
    vectors = _vectors(backbone, library)
    tokens = next(iter(vectors.values())).num_tokens if vectors else TOKENS if num_tokens is None else num_tokens
    if num_tokens not in (None, tokens):
        raise TpvError("num_tokens", expected=f"{tokens}, as the library's vectors have", got=num_tokens)
    initializers.check(tokens)
    level, count = LEVELS[budget] if isinstance(budget, str) else LEVELS["quick"], len(own.examples("train"))
    problem = Problem(
        backbone,
        own,
        vectors,
        Recipe(batch_size=min(BATCH, count), seed=seed, lr=lr or "auto", max_input_length=max_input_length),
        tokens,
        seed,
        level,
        _folds(own, level),
        callback or silent,
    )
    check_rows(problem)
    encode_examples(backbone, problem.rows, max_input_length, f"task {task.name!r}")  # tells what is truncated
    said = tell or (lambda *_: None)
    said(f"ranking {len(vectors)} sources", [])
    pace = _pace(problem)
    if not isinstance(budget, str):
        fits = [one for one in LEVELS.values() if expected_seconds(one, count, len(vectors), pace) <= budget]
        problem.level = fits[-1] if fits else level
        problem.folds = _folds(own, problem.level)
    wanted = _wanted(candidates, problem.level.name)
    seconds = expected_seconds(problem.level, count, len(vectors), pace)
    said(f"a {problem.level.name} race, about {duration(seconds)}", [])
    if not isinstance(budget, str) and seconds > budget:
        warnings.warn(
            f"even a quick race is expected to take longer than the {duration(budget)} given; fewer rows (shots), a "
            "lower max_input_length, fewer candidates or precision 'bf16' make it faster",
            TpvWarning,
            stacklevel=3,
        )
    return problem, _entrants(problem, wanted)


def _check(backbone: Backbone, task: Task, budget: str | float) -> None:
    """Refuse what cannot be transferred to."""
    if isinstance(backbone, str) or not hasattr(backbone, "identity"):
        raise TpvError("model", expected="a backbone", got=f"{backbone!r:.40}", fix="use tpv.load_backbone")
    if not isinstance(task, Task):
        raise TpvError("task to transfer to", expected="a Task", got=f"{task!r:.40}", fix="use tpv.load_task")
    if not task.labels:
        raise TpvError(f"task {task.name!r} to transfer to", expected="a task with labels", got="a text task")
    known = budget in LEVELS if isinstance(budget, str) else not isinstance(budget, bool) and budget > 0
    if not known:
        raise TpvError("budget", expected=f"{', '.join(LEVELS)}, or seconds", got=repr(budget))


def _folds(task: Task, level: Level) -> int:
    """How many folds: those of the level, or as many as the rarest label has rows."""
    counts = np.bincount([row.label for row in task.examples("train")], minlength=len(task.labels))
    return max(2, min(level.folds, int(counts.min())))


def _pace(problem: Problem) -> float:
    """Seconds to score one row, measured on what has to be scored anyway: the rows under every source."""
    begun, scored = time.perf_counter(), len(problem.task.examples("train")) * len(problem.vectors)
    if problem.vectors:
        _ = problem.ranking
    else:
        rows = problem.rows[:BATCH]
        each_on_all(problem.backbone, problem.task, [problem.init()], rows, problem.recipe.max_input_length)
        scored = len(rows)
    return (time.perf_counter() - begun) / scored


def _vectors(backbone: Backbone, library: LibraryLike) -> dict[str, TaskPromptVector]:
    """The vectors of the library that fit the model and, of those, have the commonest number of tokens, by name.

    Raises:
        TpvError: it is empty, or all of it is of another model.
    """
    if library is None:
        return {}
    if isinstance(library, str | PathLike):
        library = Library(library, model=backbone)
    if isinstance(library, Mapping):
        vectors = dict(library)
    elif not isinstance(library, Sequence):
        raise TpvError("library", expected="a tpv.Library, a path, a mapping or a list", got=type(library).__name__)
    else:
        vectors = {}
        for vector in library:
            if not isinstance(vector, TaskPromptVector):
                break
            name = " + ".join(vector.terms) or "merged"
            while name in vectors:
                name += "'"
            vectors[name] = vector
    wrong = next((one for one in (*vectors.values(), *library) if not isinstance(one, str | TaskPromptVector)), None)
    if wrong is not None:
        raise TpvError("library", expected="task prompt vectors", got=type(wrong).__name__)
    if not vectors:
        left = sum(map(len, library.left_out.values())) if isinstance(library, Library) else 0
        about = f"none of the library's {left} vectors fits the model" if left else "the library is empty"
        raise TpvError(about, fix="add vectors of this model to it, or go without one")
    fits = {name: v for name, v in vectors.items() if v.model.fingerprint == backbone.identity.fingerprint}
    if not fits:
        raise TpvError(
            "the library is of another model",
            expected=backbone.identity,
            got=next(iter(vectors.values())).model,
            fix="load the model that the vectors were trained for",
        )
    lengths = Counter(vector.num_tokens for vector in fits.values())
    most = lengths.most_common(1)[0][0]
    used = {name: vector for name, vector in fits.items() if vector.num_tokens == most}
    for count, why in (
        (len(vectors) - len(fits), "of another model"),
        (len(fits) - len(used), f"not of {most} tokens"),
    ):
        if count:
            warnings.warn(f"vectors of the library left out: {count} {why}", TpvWarning, stacklevel=4)
    return used


def _judged_by_enough(task: Task) -> Task:
    """The task without its test rows; a validation split too small to judge joins the training rows."""
    train, validation = task.examples("train"), task.splits.get("validation", ())
    if len(validation) < JUDGES:
        return replace(task, splits={"train": (*train, *validation)})
    return replace(task, splits={"train": train, "validation": validation})


def _wanted(
    candidates: Sequence[str] | Mapping[str, Mapping[str, Any]] | None, budget: str
) -> dict[str, dict[str, Any]]:
    """The candidates that race, with their parameters, checked."""
    if candidates is None:
        return {entry.name: {} for entry in register.candidate if budget in entry.about.get("budgets", ())}
    if isinstance(candidates, str):
        raise TpvError("candidates", expected="a list of names", got=repr(candidates), fix=f"write [{candidates!r}]")
    given = candidates if isinstance(candidates, Mapping) else {name: {} for name in candidates}
    return {name: register.candidate[name].checked(values) for name, values in given.items()}


def _entrants(problem: Problem, wanted: Mapping[str, Mapping[str, Any]]) -> list[Entrant]:
    """What enters the race."""
    found: list[Entrant] = []
    for name, values in wanted.items():
        made = register.candidate[name].thing(**values)
        found += [replace(entrant, candidate=name) for entrant in made.entrants(problem)]
    if not found:
        raise TpvError(
            "candidates",
            expected="some that can enter",
            got=", ".join(wanted) or "none",
            fix="give a library of vectors",
        )
    return found


def _result(problem: Problem, standings: Sequence[Standing], said: Tell) -> TransferResult:
    """The winner, fitted to all rows."""
    winner = standings[0]
    said(f"fitting {winner.entrant.name!r} to all rows", standings)
    answerer, calibrator = fitted_parts(problem, winner)
    init, prompt = problem.init(), best_prompt(answerer)
    from_init = prompt is not None and prompt.init == init.init and prompt.components
    vector = prompt - init if prompt is not None and from_init else None
    return TransferResult(
        winner.entrant.name,
        _reason(problem, standings),
        answerer,
        calibrator,
        vector,
        _table(standings),
        source_table(problem.ranking if problem.vectors else []),
        curve_table(learning_curve(problem, winner)),
        replace(problem.task, splits={}),
        problem.recipe.max_input_length,
        problem.backbone,
    )


def _table(standings: Sequence[Standing]) -> pa.Table:
    return pa.Table.from_pylist([one.row() | {"chosen": one is standings[0]} for one in standings])


def _reason(problem: Problem, standings: Sequence[Standing]) -> str:
    """Why the first was chosen, and what else would do."""
    winner, rows = standings[0], len(problem.judged)
    how = f"{winner.folds}-fold cross-validation" if winner.folds > 1 else "the validation split"
    scores = f"log loss {winner.log_loss:.3f}, accuracy {winner.accuracy:.0%} ({winner.low:.0%} to {winner.high:.0%})"
    if winner.parts:
        whole = sum(one.weight for one in winner.parts)
        averaged = ", ".join(f"{one.entrant.name} ({one.weight / whole:.0%})" for one in winner.parts)
        said = [
            f"{rows} rows do not single out one of {len(standings) - 1} candidates, so the answer is an average, "
            f"weighted by how likely each is to be the best: {averaged}. In {how}: {scores}."
        ]
    else:
        said = [f"{winner.entrant.name} is the best of {len(standings)} candidates in {how} on {rows} rows: {scores}."]
    gold = problem.gold[problem.judged]
    majority = float(np.bincount(gold).max() / len(gold))
    if winner.low <= majority:
        said.append(f"That is not clearly better than always predicting the most frequent label ({majority:.0%}).")
    cheap = next((one for one in standings[1:] if not any(map(trains, one.entrant.members))), None)
    if any(map(trains, winner.entrant.members)) and cheap is not None:
        gap = cheap.losses - winner.losses
        if gap.mean() <= gap.std(ddof=1) / len(gap) ** 0.5:
            said.append(
                f"{cheap.entrant.name} trains no prompt and is as good within the noise "
                f"(log loss {cheap.log_loss:.3f}, accuracy {cheap.accuracy:.0%})."
            )
    return " ".join(said)
